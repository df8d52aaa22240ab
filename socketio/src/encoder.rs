//! Packets as text, appended to a buffer that may already hold the headers of a transport.
//!
//! Each function leaves the buffer as it was when it fails. Text it appends is UTF-8. The attachments it returns are
//! sent right behind the text, each as one binary message, with nothing in between.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::arguments::{ArgumentWriter, Arguments};
#[cfg(feature = "server")]
use crate::data::Event;
use crate::error::UsageError;
use crate::packet::{PacketKind, is_reserved};

/// Appends an event: EVENT, or BINARY_EVENT if its arguments hold [`Binary`](crate::Binary) values.
///
/// socket.io-parser 4.2.7 takes at most ten attachments by default; we write what we are told.
///
/// # Errors
/// [`UsageError::ReservedEvent`], [`UsageError::Namespace`], [`UsageError::TooDeep`], or what an argument's `Serialize`
/// reports.
///
/// ```
/// let mut out = Vec::new();
/// socketio::encode_event(&mut out, "/chat", Some(7), "say", ("hello", 1))?;
/// assert_eq!(out, br#"2/chat,7["say","hello",1]"#);
/// # Ok::<(), socketio::UsageError>(())
/// ```
pub fn encode_event(
    out: &mut Vec<u8>,
    namespace: &str,
    ack_id: Option<u64>,
    name: &str,
    arguments: impl Arguments,
) -> Result<Vec<Bytes>, UsageError> {
    if is_reserved(name) {
        return Err(UsageError::ReservedEvent);
    }
    encode_array(out, PacketKind::Event, namespace, ack_id, Some(name), &arguments)
}

/// Appends the answer to an event: ACK, or BINARY_ACK if its arguments hold [`Binary`](crate::Binary) values.
///
/// # Errors
/// [`UsageError::Namespace`], [`UsageError::TooDeep`], or what an argument's `Serialize` reports.
pub fn encode_ack(
    out: &mut Vec<u8>,
    namespace: &str,
    ack_id: u64,
    arguments: impl Arguments,
) -> Result<Vec<Bytes>, UsageError> {
    encode_array(out, PacketKind::Ack, namespace, Some(ack_id), None, &arguments)
}

/// Appends a server's yes to a CONNECT: `sid` names the client in this namespace, `pid` is its secret for getting the
/// session back where connection state recovery is offered.
///
/// # Errors
/// [`UsageError::Namespace`].
pub fn encode_connect(out: &mut Vec<u8>, namespace: &str, sid: &str, pid: Option<&str>) -> Result<(), UsageError> {
    #[derive(Serialize)]
    struct Yes<'a> {
        sid: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<&'a str>,
    }
    encode_object(out, PacketKind::Connect, namespace, Some(&Yes { sid, pid }))
}

/// Appends a client's wish to join a namespace; `auth` is what the server's middleware sees, a JSON object.
///
/// # Errors
/// [`UsageError::Namespace`].
pub fn encode_connect_request(out: &mut Vec<u8>, namespace: &str, auth: Option<&RawValue>) -> Result<(), UsageError> {
    encode_object(out, PacketKind::Connect, namespace, auth)
}

/// Appends a server's no to a CONNECT.
///
/// # Errors
/// [`UsageError::Namespace`].
pub fn encode_connect_error(
    out: &mut Vec<u8>,
    namespace: &str,
    message: &str,
    data: Option<&RawValue>,
) -> Result<(), UsageError> {
    #[derive(Serialize)]
    struct No<'a> {
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
    }
    encode_object(out, PacketKind::ConnectError, namespace, Some(&No { message, data }))
}

/// Appends the end of one namespace, from either side.
///
/// # Errors
/// [`UsageError::Namespace`].
pub fn encode_disconnect(out: &mut Vec<u8>, namespace: &str) -> Result<(), UsageError> {
    encode_object(out, PacketKind::Disconnect, namespace, None::<&()>)
}

fn encode_array(
    out: &mut Vec<u8>,
    kind: PacketKind,
    namespace: &str,
    ack_id: Option<u64>,
    name: Option<&str>,
    arguments: &impl Arguments,
) -> Result<Vec<Bytes>, UsageError> {
    encode_with(out, kind, namespace, ack_id, |out| ArgumentWriter::array(out, name, arguments))
}

/// Appends an event that came from elsewhere: the array as it is, with a name that may be a number or be written with
/// other escapes.
///
/// # Errors
/// [`UsageError::ReservedEvent`], [`UsageError::Namespace`], [`UsageError::MalformedData`].
#[cfg(feature = "server")]
pub(crate) fn encode_forwarded(
    out: &mut Vec<u8>,
    namespace: &str,
    ack_id: Option<u64>,
    event: &Event,
) -> Result<Vec<Bytes>, UsageError> {
    if is_reserved(event.name()) {
        return Err(UsageError::ReservedEvent);
    }
    let data = event.data();
    data.validate().map_err(|_| UsageError::MalformedData)?;
    encode_with(out, PacketKind::Event, namespace, ack_id, |out| {
        // Nothing lies between the last argument and the bracket, where more may be put later.
        let array = data.json().trim();
        out.extend_from_slice(array.strip_suffix(']').unwrap_or(array).trim_end().as_bytes());
        out.push(b']');
        Ok(data.attachments().to_vec())
    })
}

fn encode_with(
    out: &mut Vec<u8>,
    kind: PacketKind,
    namespace: &str,
    ack_id: Option<u64>,
    array: impl FnOnce(&mut Vec<u8>) -> Result<Vec<Bytes>, UsageError>,
) -> Result<Vec<Bytes>, UsageError> {
    let start = out.len();
    let written = header(out, kind, namespace).and_then(|()| {
        if let Some(id) = ack_id {
            append(out, &id)?;
        }
        array(out)
    });
    match &written {
        Ok(attachments) if attachments.is_empty() => {}
        // Only now is their number known: the header of the rare packet moves, that of the common one stays.
        Ok(attachments) => {
            let kind = if kind == PacketKind::Ack { PacketKind::BinaryAck } else { PacketKind::BinaryEvent };
            let header = format!("{}{}-", kind.digit(), attachments.len());
            drop(out.splice(start..=start, header.into_bytes()));
        }
        Err(_) => out.truncate(start),
    }
    written
}

fn encode_object(
    out: &mut Vec<u8>,
    kind: PacketKind,
    namespace: &str,
    data: Option<&(impl Serialize + ?Sized)>,
) -> Result<(), UsageError> {
    let start = out.len();
    let written = header(out, kind, namespace).and_then(|()| data.map_or(Ok(()), |data| append(out, data)));
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn header(out: &mut Vec<u8>, kind: PacketKind, namespace: &str) -> Result<(), UsageError> {
    if !namespace.starts_with('/') || namespace.contains(',') {
        return Err(UsageError::Namespace);
    }
    out.push(kind.digit() as u8);
    if namespace != "/" {
        out.extend_from_slice(namespace.as_bytes());
        out.push(b',');
    }
    Ok(())
}

fn append(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> Result<(), UsageError> {
    serde_json::to_writer(out, value).map_err(|error| UsageError::Serialize(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde::ser::Error as _;
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::{Binary, Data, Event};

    fn event(namespace: &str, ack_id: Option<u64>, name: &str, arguments: impl Arguments) -> String {
        let mut out = b"4".to_vec();
        let attachments = encode_event(&mut out, namespace, ack_id, name, arguments).unwrap();
        assert!(attachments.is_empty());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_are_appended_behind_what_is_there() {
        assert_eq!(event("/", None, "e", ()), r#"42["e"]"#);
        assert_eq!(event("/", Some(0), "e", (1,)), r#"420["e",1]"#);
        assert_eq!(event("/a", Some(7), "e", (1, "b")), r#"42/a,7["e",1,"b"]"#);
        assert_eq!(event("/a", None, "q\"\u{1}", &[1, 2]), r#"42/a,["q\"\u0001",[1,2]]"#);
        assert_eq!(event("/", None, "e", "text"), r#"42["e","text"]"#);
        assert_eq!(event("/", None, "e", (1, 2, 3, 4, 5, 6, 7, 8)), r#"42["e",1,2,3,4,5,6,7,8]"#);
    }

    #[test]
    fn control_packets_have_the_bytes_of_the_reference() {
        let mut out = Vec::new();
        encode_connect(&mut out, "/", "s1", None).unwrap();
        out.push(b' ');
        encode_connect(&mut out, "/a", "s1", Some("p1")).unwrap();
        out.push(b' ');
        encode_connect_error(&mut out, "/a", "no", None).unwrap();
        out.push(b' ');
        encode_connect_error(&mut out, "/", "no", Some(&to_raw_value(&[1]).unwrap())).unwrap();
        out.push(b' ');
        encode_disconnect(&mut out, "/").unwrap();
        out.push(b' ');
        encode_disconnect(&mut out, "/a").unwrap();
        out.push(b' ');
        encode_connect_request(&mut out, "/a", None).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"0{"sid":"s1"} 0/a,{"sid":"s1","pid":"p1"} 4/a,{"message":"no"} 4{"message":"no","data":[1]} 1 1/a, 0/a,"#
        );
    }

    #[test]
    fn attachments_turn_the_packet_into_its_binary_kind() {
        let mut out = b"4".to_vec();
        let image = Binary::from(vec![1, 2]);
        let attachments = encode_event(&mut out, "/a", Some(3), "e", (&image, "x", &image)).unwrap();
        assert_eq!(attachments, [image.0.clone(), image.0.clone()]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"452-/a,3["e",{"_placeholder":true,"num":0},"x",{"_placeholder":true,"num":1}]"#
        );
        let mut out = Vec::new();
        assert_eq!(encode_ack(&mut out, "/", 0, (&image,)).unwrap(), [image.0]);
        assert_eq!(String::from_utf8(out).unwrap(), r#"61-0[{"_placeholder":true,"num":0}]"#);
    }

    #[test]
    fn empty_acks_are_empty_arrays() {
        let mut out = Vec::new();
        encode_ack(&mut out, "/", u64::MAX, ()).unwrap();
        assert_eq!(out, b"318446744073709551615[]");
    }

    #[test]
    fn reserved_names_and_odd_namespaces_are_errors_that_leave_no_trace() {
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(S::Error::custom("broken"))
            }
        }
        let mut out = b"4".to_vec();
        for name in ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"] {
            assert_eq!(encode_event(&mut out, "/", None, name, ()), Err(UsageError::ReservedEvent));
        }
        for namespace in ["", "chat", "/a,b"] {
            assert_eq!(encode_disconnect(&mut out, namespace), Err(UsageError::Namespace));
        }
        let failed = encode_event(&mut out, "/", None, "e", (1, Binary::default(), Broken));
        assert_eq!(failed, Err(UsageError::Serialize("broken".to_owned())));
        assert_eq!(out, b"4");
    }

    #[test]
    fn what_a_receiver_would_refuse_as_too_deep_is_not_written() {
        let nested = |depth: usize| format!("{}\"[{{\"{}", "[".repeat(depth), "]".repeat(depth));
        let mut out = b"4".to_vec();
        let deep = serde_json::value::RawValue::from_string(nested(128)).unwrap();
        assert_eq!(encode_event(&mut out, "/", None, "e", (&deep,)), Err(UsageError::TooDeep));
        assert_eq!(encode_ack(&mut out, "/", 1, (&deep,)), Err(UsageError::TooDeep));
        assert_eq!(out, b"4");
        let deepest = serde_json::value::RawValue::from_string(nested(127)).unwrap();
        assert_eq!(encode_event(&mut out, "/", None, "e", (&deepest, "[".repeat(200))), Ok(vec![]));
    }

    #[test]
    fn data_is_forwarded_as_it_came() {
        let json = r#"["in", {"_placeholder":true,"num":0} , 2 ] "#;
        let attachment = Bytes::from_static(b"x");
        let incoming = Event::from_json(json, vec![attachment.clone()]).unwrap().into_data();
        let mut out = Vec::new();
        assert_eq!(encode_event(&mut out, "/", None, "out", incoming), Ok(vec![attachment]));
        assert_eq!(out, br#"51-["out",{"_placeholder":true,"num":0} , 2]"#);
        out.clear();
        assert_eq!(encode_ack(&mut out, "/", 1, Data::default()), Ok(vec![]));
        assert_eq!(out, b"31[]");
        let broken = Data::from_json("[1,", vec![]).unwrap();
        assert_eq!(encode_ack(&mut out, "/", 1, broken), Err(UsageError::MalformedData));
    }
}
