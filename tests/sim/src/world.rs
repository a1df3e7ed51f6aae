//! Who and what there is in a run: groups, channels, users and their clients. The same in every
//! seed; what they do differs. Names are the letter and the number that `history` prints.

use throng_protocol::cluster::Permissions;
use throng_protocol::ids::{ChannelId, DeviceId, GroupId, NameError, RoleId, UserId};

use crate::history::{Channel, Client, Group, User};

/// The groups: the first holds most of the traffic, the second shows that fences of one group are
/// none of another.
pub const GROUPS: u8 = 2;

/// The group of each channel.
pub const CHANNELS: &[Group] = &[Group(0), Group(0), Group(0), Group(1)];

/// The user of each client. User 0 makes the groups and is never fenced; users 1 and 2 have two
/// devices, so that a kick meets sends and deliveries at two edges.
pub const CLIENTS: &[User] = &[User(0), User(1), User(1), User(2), User(2), User(3)];

/// The user who made the groups, and may kick and mute.
pub const CREATOR: User = User(0);

/// The role of each group that lets change messages of others.
///
/// # Errors
/// Never: the name is short and printable.
pub fn moderator() -> Result<RoleId, NameError> {
    RoleId::new("moderator")
}

/// What the role lets do.
#[must_use]
pub fn permissions(may: bool) -> Permissions {
    let all = [
        Permissions::MODIFY_OTHERS,
        Permissions::RECALL_OTHERS,
        Permissions::DELETE,
    ];
    match may {
        true => all.into_iter().fold(Permissions::NONE, Permissions::with),
        false => Permissions::NONE,
    }
}

/// All groups.
pub fn groups() -> impl Iterator<Item = Group> {
    (0..GROUPS).map(Group)
}

/// All channels.
pub fn channels() -> impl Iterator<Item = Channel> {
    (0u8..).zip(CHANNELS).map(|(number, _)| Channel(number))
}

/// All clients.
pub fn clients() -> impl Iterator<Item = Client> {
    (0u8..).zip(CLIENTS).map(|(number, _)| Client(number))
}

/// All users.
pub fn users() -> impl Iterator<Item = User> {
    let last = CLIENTS.iter().map(|user| user.0).max().unwrap_or_default();
    (0..=last).map(User)
}

impl Channel {
    /// The group it is in.
    #[must_use]
    pub fn group(self) -> Group {
        CHANNELS[usize::from(self.0)]
    }

    /// Its name.
    ///
    /// # Errors
    /// Never: the name is short and printable.
    pub fn id(self) -> Result<ChannelId, NameError> {
        ChannelId::new(&self.to_string())
    }

    /// The channel of a name of this world.
    #[must_use]
    pub fn named(name: &ChannelId) -> Option<Self> {
        number_of(name.as_str(), 'c')
            .map(Self)
            .filter(|channel| usize::from(channel.0) < CHANNELS.len())
    }
}

impl Group {
    /// Its name.
    ///
    /// # Errors
    /// Never: the name is short and printable.
    pub fn id(self) -> Result<GroupId, NameError> {
        GroupId::new(&self.to_string())
    }

    /// The group of a name of this world.
    #[must_use]
    pub fn named(name: &GroupId) -> Option<Self> {
        number_of(name.as_str(), 'g')
            .map(Self)
            .filter(|group| group.0 < GROUPS)
    }

    /// Its channels.
    pub fn channels(self) -> impl Iterator<Item = Channel> {
        channels().filter(move |channel| channel.group() == self)
    }
}

impl User {
    /// Its name.
    ///
    /// # Errors
    /// Never: the name is short and printable.
    pub fn id(self) -> Result<UserId, NameError> {
        UserId::new(&self.to_string())
    }

    /// The user of a name of this world.
    #[must_use]
    pub fn named(name: &UserId) -> Option<Self> {
        number_of(name.as_str(), 'u')
            .map(Self)
            .filter(|user| users().any(|known| known == *user))
    }
}

impl Client {
    /// Whose device it is.
    #[must_use]
    pub fn user(self) -> User {
        CLIENTS[usize::from(self.0)]
    }

    /// The other device of the same user.
    #[must_use]
    pub fn twin(self) -> Option<Self> {
        clients().find(|other| *other != self && other.user() == self.user())
    }

    /// Its device's name.
    ///
    /// # Errors
    /// Never: the name is short and printable.
    pub fn device(self) -> Result<DeviceId, NameError> {
        DeviceId::new(&self.to_string())
    }
}

fn number_of(name: &str, letter: char) -> Option<u8> {
    name.strip_prefix(letter)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_foreign_ones_are_not() {
        for channel in channels() {
            assert_eq!(Channel::named(&channel.id().unwrap()), Some(channel));
        }
        for group in groups() {
            assert_eq!(Group::named(&group.id().unwrap()), Some(group));
        }
        for user in users() {
            assert_eq!(User::named(&user.id().unwrap()), Some(user));
        }
        assert_eq!(User::named(&UserId::new("u99").unwrap()), None);
        assert_eq!(Channel::named(&ChannelId::new("g0").unwrap()), None);
    }

    #[test]
    fn two_users_have_a_second_device() {
        assert_eq!(Client(1).twin(), Some(Client(2)));
        assert_eq!(Client(2).twin(), Some(Client(1)));
        assert_eq!(Client(0).twin(), None);
    }
}
