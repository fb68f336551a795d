//! An event, its place, and who may see it.

use std::{fmt, fmt::Write, str::FromStr};

use loom_core::{
    Principal,
    authorize::{Ownership, Visibility},
    id::{OrgId, ThreadId, UserId},
};

use crate::raw::Raw;

/// A place in the outbox: all before it has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    /// The transaction.
    pub(crate) xid: i64,
    /// The event; 0 is before the transaction's first.
    pub(crate) id: i64,
}

impl Cursor {
    pub(crate) const START: Self = Self { xid: 0, id: 0 };

    /// Behind all transactions below this one.
    pub(crate) fn settled(xid: i64) -> Self {
        Self { xid, id: 0 }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.xid, self.id)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (xid, id) = text.split_once('-').ok_or(())?;
        let number = |digits: &str| {
            let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if is_plain { digits.parse::<i64>().map_err(drop) } else { Err(()) }
        };
        Ok(Self { xid: number(xid)?, id: number(id)? })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Message,
    State,
    Updated,
    Visibility,
    Deleted,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Message, Self::State, Self::Updated, Self::Visibility, Self::Deleted];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::State => "state",
            Self::Updated => "updated",
            Self::Visibility => "visibility",
            Self::Deleted => "deleted",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// An event that is still to be written.
pub(crate) struct NewEvent {
    pub(crate) kind: Kind,
    pub(crate) shown_before: Option<Visibility>,
    pub(crate) data: String,
}

/// To whom an event's thread is shown, as of when it was read last.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shown {
    To(Option<UserId>, Visibility),
    /// Only its deletion is told, to these.
    Deleted(Option<UserId>, Visibility),
    Gone,
}

/// An event of the outbox.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: Cursor,
    pub(crate) org: OrgId,
    pub(crate) thread: ThreadId,
    pub(crate) kind: Kind,
    pub(crate) shown: Shown,
    pub(crate) shown_before: Option<Visibility>,
    /// One line of JSON.
    pub(crate) data: Raw,
}

/// What of an event somebody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    All,
    /// Only that the thread, which they may have seen, is not theirs to see any more.
    Hidden,
    Nothing,
}

impl Event {
    /// `shown` is what holds now.
    pub(crate) fn told_to(&self, principal: &Principal, shown: Shown) -> Told {
        let (owner, visibility, is_deleted) = match shown {
            Shown::To(owner, visibility) => (owner, visibility, false),
            Shown::Deleted(owner, visibility) => (owner, visibility, true),
            Shown::Gone => return Told::Nothing,
        };
        let visible =
            |visibility| Ownership { org: self.org, owner, visibility }.visible_to(principal);
        if visible(visibility) {
            if is_deleted && self.kind != Kind::Deleted { Told::Nothing } else { Told::All }
        } else if self.shown_before.is_some_and(visible) {
            Told::Hidden
        } else {
            Told::Nothing
        }
    }

    /// Writes it as a server-sent event.
    pub(crate) fn write(&self, told: Told, out: &mut String) {
        // Writing into a string does not fail.
        let _ = match told {
            Told::Nothing => Ok(()),
            Told::All => write!(
                out,
                "id: {}\nevent: {}\ndata: {}\n\n",
                self.at,
                self.kind.as_str(),
                self.data.get()
            ),
            Told::Hidden => write!(
                out,
                "id: {}\nevent: deleted\ndata: {{\"thread_id\":\"{}\",\"reason\":\"hidden\"}}\n\n",
                self.at, self.thread
            ),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written_and_nothing_else_is() {
        let cursor = Cursor { xid: 731, id: 12 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in
            ["", "-", "7", "7-", "-7", "7-+1", "a-b", "7-1-2", "99999999999999999999-1", "7 -1"]
        {
            assert_eq!(text.parse::<Cursor>(), Err(()), "{text}");
        }
    }
}
