//! A refusal on its way to a client.

use throng_protocol::cluster::Reply;
use throng_protocol::code::Code;

/// Why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refused {
    pub code: Code,
    pub text: String,
    /// The grant it was judged by is older than a fence: nobody is told before a fresh one says so.
    pub stale: bool,
}

impl Refused {
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            stale: false,
        }
    }

    /// The grant given along is older than a fence of its user.
    pub fn stale() -> Self {
        Self {
            stale: true,
            ..Self::new(Code::NotMember, "the right to do this has ended")
        }
    }

    /// Whether it was computed from a grant, which may be out of date.
    pub fn is_of_grant(&self) -> bool {
        matches!(self.code, Code::NotMember | Code::Forbidden | Code::Muted)
    }

    /// Nobody could carry it out in time; the client may try again.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, text)
    }

    /// A core node gave a reply to another request.
    pub fn unexpected(reply: &Reply) -> Self {
        tracing::error!(?reply, "a core node answered with the reply to another request");
        Self::new(Code::Internal, "the core gave another kind of reply")
    }
}
