//! The text part of a packet, decoded slowly and plainly: characters in a list, a tree of JSON, no offsets.

/// A packet, as far as the targets compare it.
#[derive(Debug)]
pub(crate) struct Reference {
    kind: u32,
    pub(crate) attachments: u32,
    pub(crate) namespace: String,
    pub(crate) ack_id: Option<u64>,
    pub(crate) event: Option<String>,
    pub(crate) has_data: bool,
}

impl Reference {
    /// The type, as the digit it was written with.
    pub(crate) fn digit(&self) -> char {
        char::from_digit(self.kind, 10).unwrap_or('?')
    }
}

/// Decodes a packet, or finds a reason not to.
pub(crate) fn decode(text: &str, max_attachments: u32, max_namespace_bytes: usize) -> Option<Reference> {
    let mut rest: Vec<char> = text.chars().rev().collect();
    let kind = rest.pop()?.to_digit(10).filter(|digit| *digit <= 6)?;
    let mut attachments = 0;
    if kind >= 5 {
        let digits = take_while(&mut rest, |c| c.is_ascii_digit());
        if digits.is_empty() || rest.pop() != Some('-') {
            return None;
        }
        let digits = digits.trim_start_matches('0');
        attachments = digits.parse().ok().filter(|count| *count >= 1 && *count <= max_attachments)?;
    }
    let mut namespace = "/".to_owned();
    if rest.last() == Some(&'/') {
        namespace = take_while(&mut rest, |c| c != ',');
        rest.pop();
    }
    if namespace.len() > max_namespace_bytes {
        return None;
    }
    let digits = take_while(&mut rest, |c| c.is_ascii_digit());
    let ack_id = if digits.is_empty() { None } else { Some(digits.parse().ok()?) };
    let has_data = !rest.is_empty();
    let mut event = None;
    if has_data {
        let mut parser = Parser { rest };
        let data = parser.value(0)?;
        parser.whitespace();
        if !parser.rest.is_empty() {
            return None;
        }
        let (object, array, text) =
            (matches!(data, Json::Object(_)), matches!(data, Json::Array(_)), matches!(data, Json::Text(_)));
        let fits = match kind {
            0 => object,
            2 | 3 | 5 | 6 => array,
            4 => object || text,
            _ => false,
        };
        if !fits {
            return None;
        }
        if kind == 2 || kind == 5 {
            event = Some(data.event_name().filter(|name| !RESERVED.contains(&name.as_str()))?);
        }
        if kind >= 5 && !data.placeholders_below(attachments) {
            return None;
        }
    }
    Some(Reference { kind, attachments, namespace, ack_id, event, has_data })
}

const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

fn take_while(rest: &mut Vec<char>, accept: impl Fn(char) -> bool) -> String {
    let mut taken = String::new();
    while let Some(c) = rest.pop() {
        if !accept(c) {
            rest.push(c);
            break;
        }
        taken.push(c);
    }
    taken
}

#[derive(Debug)]
enum Json {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    /// None for text that JSON can hold and Unicode cannot.
    Text(Option<String>),
    Array(Vec<Json>),
    Object(Vec<(Option<String>, Json)>),
}

impl Json {
    fn event_name(&self) -> Option<String> {
        let Self::Array(elements) = self else { return None };
        match elements.first()? {
            Self::Number(name) => Some(name.clone()),
            Self::Text(name) => name.clone(),
            Self::Null | Self::Bool(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    fn placeholders_below(&self, attachments: u32) -> bool {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => true,
            Self::Array(elements) => elements.iter().all(|element| element.placeholders_below(attachments)),
            Self::Object(fields) => {
                let last = |name: &str| {
                    let named = fields.iter().rev().find(|(key, _)| key.as_deref() == Some(name));
                    named.map(|(_, value)| value)
                };
                let index =
                    if let Some(Self::Number(number)) = last("num") { number.parse::<u64>().ok() } else { None };
                let placeholder = matches!(last("_placeholder"), Some(Self::Bool(true)));
                let sound = !placeholder || index.is_some_and(|index| index < u64::from(attachments));
                sound && fields.iter().all(|(_, value)| value.placeholders_below(attachments))
            }
        }
    }
}

/// Recursive descent over RFC 8259, characters popped from the end of a reversed list.
struct Parser {
    rest: Vec<char>,
}

impl Parser {
    fn whitespace(&mut self) {
        take_while(&mut self.rest, |c| matches!(c, ' ' | '\t' | '\n' | '\r'));
    }

    /// Pops the next character, past whitespace, if it is this one.
    fn eat(&mut self, wanted: char) -> bool {
        self.whitespace();
        let found = self.rest.last() == Some(&wanted);
        if found {
            self.rest.pop();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.whitespace();
        match *self.rest.last()? {
            '[' if depth == 128 => None,
            '{' if depth == 128 => None,
            '[' => {
                self.rest.pop();
                let mut elements = Vec::new();
                if self.eat(']') {
                    return Some(Json::Array(elements));
                }
                loop {
                    elements.push(self.value(depth + 1)?);
                    if self.eat(']') {
                        return Some(Json::Array(elements));
                    }
                    if !self.eat(',') {
                        return None;
                    }
                }
            }
            '{' => {
                self.rest.pop();
                let mut fields = Vec::new();
                if self.eat('}') {
                    return Some(Json::Object(fields));
                }
                loop {
                    if !self.eat('"') {
                        return None;
                    }
                    let key = self.text()?;
                    if !self.eat(':') {
                        return None;
                    }
                    fields.push((key, self.value(depth + 1)?));
                    if self.eat('}') {
                        return Some(Json::Object(fields));
                    }
                    if !self.eat(',') {
                        return None;
                    }
                }
            }
            '"' => {
                self.rest.pop();
                Some(Json::Text(self.text()?))
            }
            '-' | '0'..='9' => self.number().map(Json::Number),
            _ => match take_while(&mut self.rest, |c| c.is_ascii_lowercase()).as_str() {
                "null" => Some(Json::Null),
                "true" => Some(Json::Bool(true)),
                "false" => Some(Json::Bool(false)),
                _ => None,
            },
        }
    }

    fn number(&mut self) -> Option<String> {
        let mut number = take_while(&mut self.rest, |c| c == '-');
        let whole = take_while(&mut self.rest, |c| c.is_ascii_digit());
        if number.len() > 1 || whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
            return None;
        }
        number += &whole;
        if self.rest.last() == Some(&'.') {
            self.rest.pop();
            let fraction = take_while(&mut self.rest, |c| c.is_ascii_digit());
            if fraction.is_empty() {
                return None;
            }
            number = format!("{number}.{fraction}");
        }
        if matches!(self.rest.last(), Some('e' | 'E')) {
            number.push(self.rest.pop()?);
            if matches!(self.rest.last(), Some('+' | '-')) {
                number.push(self.rest.pop()?);
            }
            let exponent = take_while(&mut self.rest, |c| c.is_ascii_digit());
            if exponent.is_empty() {
                return None;
            }
            number += &exponent;
        }
        Some(number)
    }

    /// The rest of a string, its closing quote included.
    fn text(&mut self) -> Option<Option<String>> {
        let mut units: Vec<u16> = Vec::new();
        loop {
            let c = match self.rest.pop()? {
                '"' => return Some(String::from_utf16(&units).ok()),
                '\\' => match self.rest.pop()? {
                    c @ ('"' | '\\' | '/') => c,
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'u' => {
                        let mut unit = 0;
                        for _ in 0..4 {
                            unit = unit * 16 + u16::try_from(self.rest.pop()?.to_digit(16)?).ok()?;
                        }
                        units.push(unit);
                        continue;
                    }
                    _ => return None,
                },
                c if c < ' ' => return None,
                c => c,
            };
            units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        }
    }
}
