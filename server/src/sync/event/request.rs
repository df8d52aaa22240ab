//! What clients ask for.

use std::{collections::HashMap, fmt};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Refusal;
use crate::sync::playback::SourceType;
use crate::sync::rows::{PlaybackControl, WaitFor};
use crate::text::{NAME, Rules, SENTENCE, Unfit};

/// `room:join`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Which room; in upper case, whatever the peer typed.
    pub room_code: String,
    /// The room's password, at most 128 characters.
    pub password: Option<String>,
    /// What a guest wants to be called, by the rules of a [`NAME`].
    pub guest_name: Option<String>,
    /// The token of an earlier `room:state`.
    pub resume_token: Option<String>,
}

/// `room:update`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UpdateRequest {
    /// A new name, by the rules of a [`NAME`].
    pub name: Option<String>,
    /// Another number of seats.
    pub max_participants: Option<u32>,
    /// `Some(None)` takes the password away, `Some(Some(_))` sets it: 4 to 128 characters.
    pub password: Option<Option<String>>,
    /// Who may control playback.
    pub playback_control: Option<PlaybackControl>,
    /// Whom playback waits for.
    pub wait_for: Option<WaitFor>,
}

/// `room:grant`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRequest {
    /// Who is granted or denied.
    pub oder_id: String,
    /// Whether they may control playback in a `selected` room.
    pub can_control: bool,
}

/// `room:kick`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KickRequest {
    /// Who has to go.
    pub oder_id: String,
    /// Why, for them to read, by the rules of a [`SENTENCE`]; none if there is nothing to be seen in it.
    pub reason: Option<String>,
}

/// `room:transfer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferRequest {
    /// Who gets the room.
    pub oder_id: String,
}

/// `time:ping`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimePing {
    /// The client's own time, to be returned as it is.
    pub client_time: f64,
}

/// `sync:source`.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceRequest {
    /// Where the media comes from.
    pub source_type: SourceType,
    /// Which media: 1 to 2048 characters.
    pub source_id: String,
    /// Where in the media to start, in milliseconds.
    pub start_media_time_ms: Option<f64>,
}

/// `sync:play`, and `sync:pause`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlayRequest {
    /// When everybody should act.
    pub at_server_time: Option<f64>,
}

/// `sync:seek`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeekRequest {
    /// Where to, in milliseconds of the media; not negative.
    pub target_media_time: f64,
    /// When everybody should act.
    pub at_server_time: Option<f64>,
}

/// `sync:rate`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateRequest {
    /// Media milliseconds per millisecond, 0.1 to 4.0.
    pub rate: f64,
    /// When everybody should act.
    pub at_server_time: Option<f64>,
}

/// `sync:resync`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResyncRequest {
    /// The last change the client knows of.
    pub last_sequence: Option<f64>,
}

impl JoinRequest {
    /// Reads the event's argument.
    ///
    /// # Errors
    /// A [`Refusal`] with VALIDATION_ERROR that names the field.
    pub fn decode(data: Option<&str>) -> Result<Self, Refusal> {
        let fields = Fields::read(data)?;
        let code: String = required("roomCode", fields.typed("roomCode", ROOM_CODE)?)?;
        if !crate::id::is_room_code(&code) {
            return Err(must_be("roomCode", ROOM_CODE));
        }
        Ok(Self {
            room_code: code.to_ascii_uppercase(),
            password: fields.text("password", 0, 128)?,
            guest_name: fields.clean("guestName", NAME)?,
            resume_token: fields.text("resumeToken", 0, MAX_TOKEN_CHARS)?,
        })
    }
}

impl UpdateRequest {
    /// Reads the event's argument, or the body of the REST request that does the same.
    ///
    /// # Errors
    /// A [`Refusal`] with VALIDATION_ERROR that names the field; `maxParticipants` may be 2 to `most_participants`.
    pub fn decode(data: Option<&str>, most_participants: u32) -> Result<Self, Refusal> {
        let fields = Fields::read(data)?;
        let max_participants = match fields.number("maxParticipants")? {
            Some(wanted) if wanted.fract() == 0.0 && (2.0..=f64::from(most_participants)).contains(&wanted) => {
                Some(wanted as u32)
            }
            Some(_) => {
                return Err(Refusal::invalid(format!(
                    "maxParticipants must be a whole number from 2 to {most_participants}"
                )));
            }
            None => None,
        };
        let password = if fields.is_null("password") { Some(None) } else { fields.text("password", 4, 128)?.map(Some) };
        Ok(Self {
            name: fields.clean("name", NAME)?,
            max_participants,
            password,
            playback_control: fields.typed("playbackControl", r#""owner_only", "all" or "selected""#)?,
            wait_for: fields.typed("waitFor", r#""none" or "all""#)?,
        })
    }
}

impl GrantRequest {
    /// Reads the event's argument.
    ///
    /// # Errors
    /// A [`Refusal`] with VALIDATION_ERROR that names the field.
    pub fn decode(data: Option<&str>) -> Result<Self, Refusal> {
        let fields = Fields::read(data)?;
        let can_control = required("canControl", fields.typed("canControl", "true or false")?)?;
        Ok(Self { oder_id: fields.oder_id()?, can_control })
    }
}

impl KickRequest {
    /// Reads the event's argument.
    ///
    /// # Errors
    /// A [`Refusal`] with VALIDATION_ERROR that names the field.
    pub fn decode(data: Option<&str>) -> Result<Self, Refusal> {
        let fields = Fields::read(data)?;
        let reason: Option<String> = fields.typed("reason", &chars(0, SENTENCE.most_characters))?;
        let reason = match reason.map(|reason| SENTENCE.apply(&reason)).transpose() {
            Err(Unfit::Invisible) => None,
            reason => reason.map_err(|unfit| unfit_field("reason", unfit))?,
        };
        Ok(Self { oder_id: fields.oder_id()?, reason })
    }
}

impl TransferRequest {
    /// Reads the event's argument.
    ///
    /// # Errors
    /// A [`Refusal`] with VALIDATION_ERROR that names the field.
    pub fn decode(data: Option<&str>) -> Result<Self, Refusal> {
        Ok(Self { oder_id: Fields::read(data)?.oder_id()? })
    }
}

impl TimePing {
    /// Reads the event's argument.
    ///
    /// # Errors
    /// A [`Refusal`] with VALIDATION_ERROR that names the field.
    pub fn decode(data: Option<&str>) -> Result<Self, Refusal> {
        Ok(Self { client_time: required("clientTime", Fields::read(data)?.number("clientTime")?)? })
    }
}

impl SourceRequest {
    /// Reads the event's argument.
    ///
    /// # Errors
    /// A [`Refusal`] with VALIDATION_ERROR that names the field.
    pub fn decode(data: Option<&str>) -> Result<Self, Refusal> {
        let fields = Fields::read(data)?;
        let source_type = fields.typed("sourceType", r#""upload", "youtube" or "external""#)?;
        Ok(Self {
            source_type: required("sourceType", source_type)?,
            source_id: required("sourceId", fields.text("sourceId", 1, 2_048)?)?,
            start_media_time_ms: fields.media_time("startMediaTimeMs")?,
        })
    }
}

impl PlayRequest {
    /// Reads the event's argument.
    ///
    /// # Errors
    /// A [`Refusal`] with VALIDATION_ERROR that names the field.
    pub fn decode(data: Option<&str>) -> Result<Self, Refusal> {
        Ok(Self { at_server_time: Fields::read(data)?.number("atServerTime")? })
    }
}

impl SeekRequest {
    /// Reads the event's argument.
    ///
    /// # Errors
    /// A [`Refusal`] with VALIDATION_ERROR that names the field.
    pub fn decode(data: Option<&str>) -> Result<Self, Refusal> {
        let fields = Fields::read(data)?;
        let target_media_time = required("targetMediaTime", fields.media_time("targetMediaTime")?)?;
        Ok(Self { target_media_time, at_server_time: fields.number("atServerTime")? })
    }
}

impl RateRequest {
    /// Reads the event's argument.
    ///
    /// # Errors
    /// A [`Refusal`] with VALIDATION_ERROR that names the field.
    pub fn decode(data: Option<&str>) -> Result<Self, Refusal> {
        let fields = Fields::read(data)?;
        let rate = required("rate", fields.number("rate")?)?;
        if !(0.1..=4.0).contains(&rate) {
            return Err(must_be("rate", "a number from 0.1 to 4.0"));
        }
        Ok(Self { rate, at_server_time: fields.number("atServerTime")? })
    }
}

impl ResyncRequest {
    /// Reads the event's argument.
    ///
    /// # Errors
    /// A [`Refusal`] with VALIDATION_ERROR that names the field.
    pub fn decode(data: Option<&str>) -> Result<Self, Refusal> {
        Ok(Self { last_sequence: Fields::read(data)?.number("lastSequence")? })
    }
}

/// The fields of a payload, still in the peer's words.
struct Fields<'a>(HashMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    /// Splits a payload into its fields; none at all, and `null`, are an empty one.
    fn read(data: Option<&'a str>) -> Result<Self, Refusal> {
        let fields: Option<_> = serde_json::from_str(data.unwrap_or("null"))
            .map_err(|_| Refusal::invalid("the payload must be an object"))?;
        Ok(Self(fields.unwrap_or_default()))
    }

    fn is_null(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.get() == "null")
    }

    fn typed<T: DeserializeOwned>(&self, name: &str, allowed: &str) -> Result<Option<T>, Refusal> {
        match self.0.get(name) {
            // Read as the type first and as an option only by the text, so that a unit enum cannot take `null`.
            Some(value) if !self.is_null(name) => {
                serde_json::from_str(value.get()).map(Some).map_err(|_| must_be(name, allowed))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn text(&self, name: &str, least: usize, most: usize) -> Result<Option<String>, Refusal> {
        let text = self.typed::<String>(name, &chars(least, most))?;
        match text {
            Some(text) if !(least..=most).contains(&text.chars().count()) => Err(must_be(name, &chars(least, most))),
            text => Ok(text),
        }
    }

    /// A text for others to read, as it is to be stored and shown.
    fn clean(&self, name: &str, rules: Rules) -> Result<Option<String>, Refusal> {
        let allowed = chars(1, rules.most_characters);
        let Some(text) = self.typed::<String>(name, &allowed)? else { return Ok(None) };
        rules.apply(&text).map(Some).map_err(|unfit| match unfit {
            Unfit::TooManyCharacters(_) => must_be(name, &allowed),
            Unfit::Invisible if text.trim().is_empty() => must_be(name, &allowed),
            Unfit::Invisible | Unfit::TooManyBytes(_) => unfit_field(name, unfit),
        })
    }

    fn number(&self, name: &str) -> Result<Option<f64>, Refusal> {
        const ALLOWED: &str = "a finite number";
        match self.typed::<f64>(name, ALLOWED)? {
            Some(number) if !number.is_finite() => Err(must_be(name, ALLOWED)),
            number => Ok(number),
        }
    }

    fn media_time(&self, name: &str) -> Result<Option<f64>, Refusal> {
        match self.number(name)? {
            Some(time) if !(0.0..=MAX_MEDIA_TIME_MS).contains(&time) => {
                Err(must_be(name, "a number of milliseconds, 0 or more"))
            }
            time => Ok(time),
        }
    }

    fn oder_id(&self) -> Result<String, Refusal> {
        required("oderId", self.text("oderId", 1, MAX_TOKEN_CHARS)?)
    }
}

fn required<T>(name: &str, value: Option<T>) -> Result<T, Refusal> {
    value.ok_or_else(|| Refusal::invalid(format!("{name} is required")))
}

fn must_be(name: &str, allowed: &str) -> Refusal {
    Refusal::invalid(format!("{name} must be {allowed}"))
}

/// Refuses a text for others to read.
pub(in crate::sync) fn unfit_field(name: &str, unfit: Unfit) -> Refusal {
    Refusal::invalid(format!("{name} {unfit}"))
}

fn chars(least: usize, most: usize) -> String {
    match least {
        0 => format!("a string of at most {most} characters"),
        _ => format!("a string of {least} to {most} characters"),
    }
}

// Passwords and tokens are for the check they are made for, not for logs.
impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("room_code", &self.room_code)
            .field("has_password", &self.password.is_some())
            .field("has_guest_name", &self.guest_name.is_some())
            .field("has_resume_token", &self.resume_token.is_some())
            .finish()
    }
}

impl fmt::Debug for UpdateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateRequest")
            .field("max_participants", &self.max_participants)
            .field("password", &self.password.as_ref().map(Option::is_some))
            .field("playback_control", &self.playback_control)
            .field("wait_for", &self.wait_for)
            .finish_non_exhaustive()
    }
}

const ROOM_CODE: &str = "8 letters or digits";

/// Our own ids and tokens are at most 43 characters; longer ones need not be looked up.
const MAX_TOKEN_CHARS: usize = 256;

/// The largest whole number JavaScript counts to exactly.
const MAX_MEDIA_TIME_MS: f64 = 9_007_199_254_740_991.0;

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::sync::event::ErrorCode;

    /// Asserts that decoding is refused with exactly this message.
    #[track_caller]
    fn refused<T: Debug>(result: Result<T, Refusal>, message: &str) {
        let refusal = result.unwrap_err();
        assert_eq!((refusal.code, &*refusal.message), (ErrorCode::ValidationError, message));
        assert_eq!(refusal.retry_after_ms, None);
    }

    #[test]
    fn a_join_takes_all_its_fields() {
        let text = r#"{"roomCode":"abcd2345","password":"pass","guestName":"  Zoë ","resumeToken":"tok"}"#;
        let expected = JoinRequest {
            room_code: "ABCD2345".into(),
            password: Some("pass".into()),
            guest_name: Some("Zoë".into()),
            resume_token: Some("tok".into()),
        };
        assert_eq!(JoinRequest::decode(Some(text)), Ok(expected));
    }

    #[test]
    fn a_join_needs_no_more_than_the_code() {
        let expected =
            JoinRequest { room_code: "ABCD2345".into(), password: None, guest_name: None, resume_token: None };
        assert_eq!(JoinRequest::decode(Some(r#"{"roomCode":"ABCD2345"}"#)), Ok(expected.clone()));
        let text = r#"{"roomCode":"ABCD2345","password":null,"guestName":null,"resumeToken":null,"extra":{"a":[1]}}"#;
        assert_eq!(JoinRequest::decode(Some(text)), Ok(expected));
    }

    #[test]
    fn a_join_without_payload_misses_its_code() {
        for data in [None, Some("null"), Some("{}"), Some(r#"{"roomCode":null}"#)] {
            refused(JoinRequest::decode(data), "roomCode is required");
        }
    }

    #[test]
    fn a_room_code_is_eight_letters_or_digits() {
        for code in [r#""ABCD234""#, r#""ABCD23456""#, r#""ABCD-234""#, r#""ÄBCD234""#, "12345678", "[]", r#""""#] {
            refused(
                JoinRequest::decode(Some(&format!(r#"{{"roomCode":{code}}}"#))),
                "roomCode must be 8 letters or digits",
            );
        }
    }

    #[test]
    fn a_payload_is_an_object() {
        for data in ["[]", "3", r#""ABCD2345""#, "true", "", "{", r#"{"a":1} x"#, "\u{0}"] {
            refused(JoinRequest::decode(Some(data)), "the payload must be an object");
        }
    }

    #[test]
    fn a_guest_name_is_1_to_50_characters_after_trimming() {
        let join = |name: &str| JoinRequest::decode(Some(&format!(r#"{{"roomCode":"ABCD2345","guestName":{name}}}"#)));
        let fifty = format!(r#""  {}  ""#, "ö".repeat(50));
        assert_eq!(join(&fifty).unwrap().guest_name, Some("ö".repeat(50)));
        for name in [r#""""#, r#""   ""#, &format!(r#""{}""#, "ö".repeat(51)), "7", "{}"] {
            refused(join(name), "guestName must be a string of 1 to 50 characters");
        }
    }

    #[test]
    fn names_of_guests_and_rooms_are_cleaned_or_refused() {
        let join = |name: &str| {
            let payload = serde_json::json!({ "roomCode": "ABCD2345", "guestName": name }).to_string();
            JoinRequest::decode(Some(&payload)).map(|join| join.guest_name.unwrap())
        };
        let update = |name: &str| {
            let payload = serde_json::json!({ "name": name }).to_string();
            UpdateRequest::decode(Some(&payload), 50).map(|update| update.name.unwrap())
        };
        for (name, expected) in [("Ann\u{200b}", "Ann"), ("\u{202e}evil.moc", "evil.moc"), ("A\nnn\u{0}\u{1b}", "Ann")]
        {
            assert_eq!(join(name).as_deref(), Ok(expected));
            assert_eq!(update(name).as_deref(), Ok(expected));
        }
        for name in ["\u{200b}", "\u{3164}", "\u{0}", "\u{1b}", "\u{202e}"] {
            refused(join(name), "guestName must have a visible character");
            refused(update(name), "name must have a visible character");
        }
        assert_eq!(join(&"🇩🇪".repeat(50)), Ok("🇩🇪".repeat(50)));
        refused(join(&"👩‍👩‍👧‍👦".repeat(17)), "guestName must be a string of at most 400 bytes");
    }

    #[test]
    fn a_join_password_is_at_most_128_characters() {
        let join = |text: &str| JoinRequest::decode(Some(&format!(r#"{{"roomCode":"ABCD2345","password":"{text}"}}"#)));
        assert_eq!(join(&"é".repeat(128)).unwrap().password, Some("é".repeat(128)));
        assert_eq!(join("").unwrap().password, Some(String::new()));
        refused(join(&"é".repeat(129)), "password must be a string of at most 128 characters");
    }

    #[test]
    fn a_resume_token_is_a_string() {
        let join = JoinRequest::decode(Some(r#"{"roomCode":"ABCD2345","resumeToken":5}"#));
        refused(join, "resumeToken must be a string of at most 256 characters");
    }

    #[test]
    fn a_join_keeps_its_secrets_out_of_debug_output() {
        let text = r#"{"roomCode":"ABCD2345","password":"hunter2","resumeToken":"seat-token"}"#;
        let shown = format!("{:?}", JoinRequest::decode(Some(text)).unwrap());
        assert!(!shown.contains("hunter2") && !shown.contains("seat-token"), "{shown}");
    }

    #[test]
    fn an_update_takes_all_its_fields() {
        let text = r#"{"name":" Abend ","maxParticipants":12,"password":"pass","playbackControl":"selected",
            "waitFor":"all"}"#;
        let expected = UpdateRequest {
            name: Some("Abend".into()),
            max_participants: Some(12),
            password: Some(Some("pass".into())),
            playback_control: Some(PlaybackControl::Selected),
            wait_for: Some(WaitFor::All),
        };
        assert_eq!(UpdateRequest::decode(Some(text), 1_000), Ok(expected));
    }

    #[test]
    fn an_update_may_be_empty() {
        assert_eq!(UpdateRequest::decode(None, 1_000), Ok(UpdateRequest::default()));
    }

    #[test]
    fn an_absent_a_null_and_a_set_password_are_told_apart() {
        let password = |text| UpdateRequest::decode(Some(text), 1_000).unwrap().password;
        assert_eq!(password("{}"), None);
        assert_eq!(password(r#"{"password":null}"#), Some(None));
        assert_eq!(password(r#"{"password": null }"#), Some(None));
        assert_eq!(password(r#"{"password":"pass"}"#), Some(Some("pass".into())));
    }

    #[test]
    fn a_new_password_is_4_to_128_characters() {
        for text in [r#""abc""#, r#""""#, &format!(r#""{}""#, "x".repeat(129)), "false"] {
            let update = UpdateRequest::decode(Some(&format!(r#"{{"password":{text}}}"#)), 1_000);
            refused(update, "password must be a string of 4 to 128 characters");
        }
    }

    #[test]
    fn the_number_of_seats_is_whole_and_within_the_servers_limit() {
        let update = |seats: &str| UpdateRequest::decode(Some(&format!(r#"{{"maxParticipants":{seats}}}"#)), 50);
        assert_eq!(update("2").unwrap().max_participants, Some(2));
        assert_eq!(update("50.0").unwrap().max_participants, Some(50));
        for seats in ["1", "51", "2.5", "-3", "1e300"] {
            refused(update(seats), "maxParticipants must be a whole number from 2 to 50");
        }
        for seats in [r#""7""#, "true", "1e999"] {
            refused(update(seats), "maxParticipants must be a finite number");
        }
    }

    #[test]
    fn settings_are_one_of_their_names() {
        refused(
            UpdateRequest::decode(Some(r#"{"playbackControl":"everyone"}"#), 50),
            r#"playbackControl must be "owner_only", "all" or "selected""#,
        );
        refused(UpdateRequest::decode(Some(r#"{"waitFor":true}"#), 50), r#"waitFor must be "none" or "all""#);
    }

    #[test]
    fn a_grant_names_a_seat_and_a_choice() {
        let expected = GrantRequest { oder_id: "o".into(), can_control: true };
        assert_eq!(GrantRequest::decode(Some(r#"{"oderId":"o","canControl":true}"#)), Ok(expected));
        refused(GrantRequest::decode(Some(r#"{"oderId":"o"}"#)), "canControl is required");
        refused(GrantRequest::decode(Some(r#"{"oderId":"o","canControl":"yes"}"#)), "canControl must be true or false");
        refused(GrantRequest::decode(Some(r#"{"canControl":true}"#)), "oderId is required");
    }

    #[test]
    fn a_kick_may_give_a_reason() {
        let expected = KickRequest { oder_id: "o".into(), reason: Some("noise".into()) };
        assert_eq!(KickRequest::decode(Some(r#"{"oderId":"o","reason":" noise "}"#)), Ok(expected));
        assert_eq!(KickRequest::decode(Some(r#"{"oderId":"o"}"#)).unwrap().reason, None);
        assert_eq!(KickRequest::decode(Some(r#"{"oderId":"o","reason":" \u200b"}"#)).unwrap().reason, None);
        let odd = KickRequest::decode(Some(r#"{"oderId":"o","reason":"\u202eno\nise"}"#)).unwrap();
        assert_eq!(odd.reason.as_deref(), Some("noise"));
        let long = format!(r#"{{"oderId":"o","reason":"{}"}}"#, "x".repeat(201));
        refused(KickRequest::decode(Some(&long)), "reason must be a string of at most 200 characters");
    }

    #[test]
    fn a_transfer_names_a_seat() {
        assert_eq!(TransferRequest::decode(Some(r#"{"oderId":"o"}"#)), Ok(TransferRequest { oder_id: "o".into() }));
        refused(TransferRequest::decode(Some(r#"{"oderId":""}"#)), "oderId must be a string of 1 to 256 characters");
        refused(TransferRequest::decode(None), "oderId is required");
    }

    #[test]
    fn a_time_ping_carries_a_finite_number() {
        assert_eq!(TimePing::decode(Some(r#"{"clientTime":-1.5}"#)), Ok(TimePing { client_time: -1.5 }));
        refused(TimePing::decode(Some("{}")), "clientTime is required");
        for time in [r#""now""#, "1e999", "[1]"] {
            refused(
                TimePing::decode(Some(&format!(r#"{{"clientTime":{time}}}"#))),
                "clientTime must be a finite number",
            );
        }
    }

    #[test]
    fn a_source_has_a_type_and_an_id() {
        let text = r#"{"sourceType":"youtube","sourceId":"dQw4w9WgXcQ","startMediaTimeMs":1500}"#;
        let expected = SourceRequest {
            source_type: SourceType::Youtube,
            source_id: "dQw4w9WgXcQ".into(),
            start_media_time_ms: Some(1_500.0),
        };
        assert_eq!(SourceRequest::decode(Some(text)), Ok(expected));
        refused(SourceRequest::decode(Some("{}")), "sourceType is required");
        refused(SourceRequest::decode(Some(r#"{"sourceType":"upload"}"#)), "sourceId is required");
        refused(
            SourceRequest::decode(Some(r#"{"sourceType":"vhs","sourceId":"x"}"#)),
            r#"sourceType must be "upload", "youtube" or "external""#,
        );
    }

    #[test]
    fn a_source_id_is_1_to_2048_characters() {
        let source = |id: &str| {
            SourceRequest::decode(Some(&format!(r#"{{"sourceType":"external","sourceId":"{id}","extra":0}}"#)))
        };
        assert_eq!(source(&"ü".repeat(2_048)).unwrap().source_id.chars().count(), 2_048);
        for id in ["", &"ü".repeat(2_049)] {
            refused(source(id), "sourceId must be a string of 1 to 2048 characters");
        }
    }

    #[test]
    fn a_source_does_not_start_before_its_beginning() {
        let text = r#"{"sourceType":"upload","sourceId":"x","startMediaTimeMs":-1}"#;
        refused(SourceRequest::decode(Some(text)), "startMediaTimeMs must be a number of milliseconds, 0 or more");
    }

    #[test]
    fn a_play_may_be_empty_or_propose_a_time() {
        assert_eq!(PlayRequest::decode(None), Ok(PlayRequest { at_server_time: None }));
        assert_eq!(PlayRequest::decode(Some(r#"{"atServerTime":5.5}"#)), Ok(PlayRequest { at_server_time: Some(5.5) }));
        refused(PlayRequest::decode(Some(r#"{"atServerTime":"soon"}"#)), "atServerTime must be a finite number");
    }

    #[test]
    fn a_seek_has_a_target_not_below_zero() {
        let seek = |text| SeekRequest::decode(Some(text));
        let expected = SeekRequest { target_media_time: 0.0, at_server_time: None };
        assert_eq!(seek(r#"{"targetMediaTime":0}"#), Ok(expected));
        refused(seek("{}"), "targetMediaTime is required");
        for text in [r#"{"targetMediaTime":-0.1}"#, r#"{"targetMediaTime":1e17}"#] {
            refused(seek(text), "targetMediaTime must be a number of milliseconds, 0 or more");
        }
        refused(seek(r#"{"targetMediaTime":"0"}"#), "targetMediaTime must be a finite number");
    }

    #[test]
    fn a_rate_is_between_a_tenth_and_four() {
        let rate = |text| RateRequest::decode(Some(text));
        assert_eq!(rate(r#"{"rate":0.1}"#).unwrap().rate, 0.1);
        assert_eq!(rate(r#"{"rate":4}"#).unwrap().rate, 4.0);
        for text in [r#"{"rate":0.09}"#, r#"{"rate":4.01}"#, r#"{"rate":-1}"#, r#"{"rate":0}"#] {
            refused(rate(text), "rate must be a number from 0.1 to 4.0");
        }
        refused(rate("{}"), "rate is required");
    }

    #[test]
    fn a_resync_may_say_what_it_has() {
        assert_eq!(ResyncRequest::decode(None), Ok(ResyncRequest { last_sequence: None }));
        let expected = ResyncRequest { last_sequence: Some(7.0) };
        assert_eq!(ResyncRequest::decode(Some(r#"{"lastSequence":7}"#)), Ok(expected));
        refused(ResyncRequest::decode(Some(r#"{"lastSequence":[]}"#)), "lastSequence must be a finite number");
    }
}
