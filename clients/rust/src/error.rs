//! How things fail, and what to do about it.

use throng_protocol::code::{Class, Code};
use throng_protocol::limits::BODY_BYTES_MAX;
use throng_protocol::message;
use throng_protocol::session::client::{CommandError, RequestError as MachineError};

/// Why a request failed, after all retries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct RequestError {
    /// The protocol's code, where there is one this build knows.
    pub code: Option<Code>,
    /// The code's number on the wire; 0 where this client gave up by itself.
    pub number: u16,
    /// Whether the same request may succeed later.
    pub class: Class,
    /// What happened, for people.
    pub text: String,
    /// The request was attempted and its outcome is unknown: it may have been carried out, also if a
    /// later attempt was refused for good. A send repeated under the same id is still stored once.
    pub outcome_unknown: bool,
}

/// Why a send failed.
pub type SendError = RequestError;

impl RequestError {
    pub(crate) fn local(class: Class, text: impl Into<String>) -> Self {
        Self {
            code: None,
            number: 0,
            class,
            text: text.into(),
            outcome_unknown: false,
        }
    }

    pub(crate) fn closed() -> Self {
        Self::local(Class::Fatal, "the client is closed")
    }

    pub(crate) fn from_wire(error: &message::Error) -> Self {
        let code = error.known_code();
        let name = code.map_or_else(|| error.code.to_string(), |code| code.name().to_owned());
        Self {
            code,
            number: error.code,
            class: error.class,
            text: format!("{} ({name})", error.message),
            outcome_unknown: false,
        }
    }
}

impl From<MachineError> for RequestError {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::Refused(error) => Self::from_wire(&error),
            MachineError::RefusedLater(error) => Self {
                outcome_unknown: true,
                ..Self::from_wire(&error)
            },
            MachineError::Deadline { attempted, last } => Self {
                text: match &last {
                    Some(last) => format!("no answer within the deadline; last: {}", last.message),
                    None => "no answer within the deadline".to_owned(),
                },
                code: last.as_ref().and_then(message::Error::known_code),
                number: last.map_or(0, |last| last.code),
                class: Class::Retryable,
                outcome_unknown: attempted,
            },
            other => Self::local(Class::Fatal, other.to_string()),
        }
    }
}

impl From<CommandError> for RequestError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::BodyTooLarge(bytes) => Self {
                code: Some(Code::MessageTooLarge),
                number: Code::MessageTooLarge.number(),
                class: Class::Fatal,
                text: format!("a body has at most {BODY_BYTES_MAX} bytes, this one has {bytes}"),
                outcome_unknown: false,
            },
            CommandError::Change(change) => Self {
                code: Some(change.code()),
                number: change.code().number(),
                class: Class::Fatal,
                text: change.to_string(),
                outcome_unknown: false,
            },
            CommandError::QueueFull(_) => Self::local(Class::Retryable, error.to_string()),
            CommandError::AlreadySubscribed | CommandError::NotSubscribed => {
                Self::local(Class::Fatal, error.to_string())
            }
        }
    }
}

/// Why a client is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The application closed it.
    #[error("closed by the application")]
    Local,
    /// The cluster refused the session: a wrong, expired or foreign token, or no version in common.
    #[error("refused: {text}")]
    Refused {
        /// The code.
        code: Option<Code>,
        /// Its number on the wire.
        number: u16,
        /// What the cluster said.
        text: String,
    },
    /// No edge's certificate is trusted, or none speaks this protocol.
    #[error("no edge can be trusted: {0}")]
    Untrusted(String),
    /// The token source failed before the first connection.
    #[error(transparent)]
    Token(#[from] crate::config::TokenError),
}

/// Why a client could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The configuration names no edge.
    #[error("no edge is configured")]
    NoEdge,
    /// No UDP socket could be opened.
    #[error("cannot open a UDP socket: {0}")]
    Socket(String),
    /// What an earlier run left could not be read.
    #[error("the local store cannot be read: {0}")]
    Store(#[from] crate::store::StoreError),
    /// No edge let the client in; trying again with the same configuration will not help.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// No edge answered in time.
    #[error("no edge of {edges} answered in {seconds} s; last: {last}")]
    Unreachable {
        /// The edges.
        edges: String,
        /// How long it was tried.
        seconds: u64,
        /// What happened last.
        last: String,
    },
}
