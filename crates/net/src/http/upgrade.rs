//! The upgrade of a connection to a producer's WebSocket: a good handshake or none, and which protocol is spoken then.

use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName};
use hyper::{HeaderMap, Request, Version};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::error::{ErrorCode, Failure};
use super::{Answer, with};
use crate::v1;

/// The plain protocol's name in `Sec-WebSocket-Protocol`.
const PLAIN: &str = "slung.plain";
/// What the names of this project's protocols start with.
const OURS: &str = "slung.";

/// What is spoken on a connection that was upgraded; an extension of the answer that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// One event a message, and no answers.
    Plain,
    /// See [`crate::v1`].
    V1,
}

impl Protocol {
    /// The one of that name.
    fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::V1].into_iter().find(|protocol| protocol.name() == name)
    }

    /// As it is named in `Sec-WebSocket-Protocol`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => PLAIN,
            Self::V1 => v1::NAME,
        }
    }
}

/// Answers 101 where the request is a good handshake.
pub(super) fn upgrade(request: &Request<Incoming>) -> Result<Answer, Failure> {
    let headers = request.headers();
    let upgrade_required =
        |failure: Failure| failure.with(header::UPGRADE, "websocket").with(header::CONNECTION, "upgrade");
    if !header_has(headers, &header::UPGRADE, "websocket") || request.version() < Version::HTTP_11 {
        let message = "producers connect here by WebSocket (ws://HOST:PORT/); by HTTP events are sent to \
            /api/v1/events, and what is stored is asked for at /api/v1/query?q=QUERY";
        return Err(upgrade_required(Failure::new(ErrorCode::WebsocketRequired, message)));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let refused = Failure::new(ErrorCode::WebsocketVersion, "only WebSocket version 13 is spoken here");
        return Err(upgrade_required(refused).with(header::SEC_WEBSOCKET_VERSION, "13"));
    }
    let chosen = choose_protocol(headers, request.uri().query().unwrap_or_default()).map_err(|asked| {
        let message = format!(
            "{asked} is not spoken by this version of the server; {} and {PLAIN} are, and {PLAIN} is what a client gets \
             that offers none",
            v1::NAME
        );
        Failure::new(ErrorCode::ProtocolNotSupported, message)
    })?;
    match create_response_with_body(request, || Either::Left(Full::default())) {
        Ok(mut switching) => {
            let Chosen { protocol, offered } = chosen;
            switching.extensions_mut().insert(protocol);
            Ok(if offered { with(switching, header::SEC_WEBSOCKET_PROTOCOL, protocol.name()) } else { switching })
        }
        Err(why) => Err(Failure::new(ErrorCode::BadHandshake, why.to_string())),
    }
}

/// What is to be spoken.
#[derive(Debug, PartialEq)]
struct Chosen {
    protocol: Protocol,
    /// The client has offered it in the header, and hears of it there.
    offered: bool,
}

/// The first on offer that is spoken here; without one of ours on offer the one that the parameter names, for clients that
/// can't set the header; the plain one for those that know of no protocols.
///
/// # Errors
/// The protocol that was asked for, where it is one of ours and not spoken here.
fn choose_protocol(headers: &HeaderMap, parameters: &str) -> Result<Chosen, String> {
    let offered: Vec<&str> = list(headers, &header::SEC_WEBSOCKET_PROTOCOL).collect();
    if let Some(protocol) = offered.iter().find_map(|name| Protocol::named(name)) {
        return Ok(Chosen { protocol, offered: true });
    }
    let by_parameter = parameters.split('&').find_map(|part| part.strip_prefix("protocol="));
    match offered.into_iter().find(|name| name.starts_with(OURS)).or(by_parameter) {
        Some(asked) => match Protocol::named(asked) {
            Some(protocol) => Ok(Chosen { protocol, offered: false }),
            None => Err(asked.to_owned()),
        },
        None => Ok(Chosen { protocol: Protocol::Plain, offered: false }),
    }
}

fn header_has(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    list(headers, name).any(|item| item.eq_ignore_ascii_case(wanted))
}

/// The items of a header field that holds a list, over all its lines.
pub(super) fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn offers(lines: &[&'static str]) -> HeaderMap {
        let value = |line: &&'static str| (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(line));
        lines.iter().map(value).collect()
    }

    #[test]
    fn the_protocol_is_the_one_that_is_spoken_or_a_clear_no() {
        let plain = |offered| Ok(Chosen { protocol: Protocol::Plain, offered });
        let v1 = |offered| Ok(Chosen { protocol: Protocol::V1, offered });
        for (lines, parameters, chosen) in [
            (&[][..], "", plain(false)),
            (&["slung.plain"], "", plain(true)),
            (&["slung.v1"], "", v1(true)),
            (&["slung.v1, slung.plain"], "", v1(true)),
            (&["slung.plain, slung.v1"], "", plain(true)),
            (&["slung.v2", "slung.v1"], "", v1(true)),
            (&["bearer.abc ,slung.plain"], "", plain(true)),
            (&["bearer.abc", "slung.v1"], "", v1(true)),
            (&["slung.plain"], "protocol=slung.v1", plain(true)),
            (&["bearer.abc", "slung.v2"], "", Err("slung.v2")),
            (&["slung.v2"], "protocol=slung.v1", Err("slung.v2")),
            (&["mqtt"], "", plain(false)),
            (&["mqtt"], "protocol=slung.v1", v1(false)),
            (&[], "protocol=slung.plain", plain(false)),
            (&[], "a=b&protocol=slung.v1", v1(false)),
            (&[], "protocol=other", Err("other")),
            (&[], "protocol=", Err("")),
        ] {
            assert_eq!(
                choose_protocol(&offers(lines), parameters),
                chosen.map_err(str::to_owned),
                "{lines:?} {parameters}"
            );
        }
    }
}
