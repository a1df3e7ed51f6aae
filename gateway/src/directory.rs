//! What the edge knows of users, members and channels: asked once, held for a while.

use std::sync::Arc;

use throng_fanout::Rights;
use throng_protocol::cluster::{self, ChannelInfo, Grant, GrantClaims, Reply, Request};
use throng_protocol::code::Code;
use throng_protocol::ids::{AppId, ChannelId, GroupId, UserId, UserNumber};
use throng_protocol::placement::PlacementKey;
use tokio::time::{Instant, timeout_at};

use crate::cache::{Cache, Coalesce};
use crate::generations::Generations;
use crate::limits::{CHANNEL_NAMES_MAX, GRANT_TTL, GRANTS_MAX, USERS_MAX};
use crate::refused::Refused;
use crate::upstream::{Deadline, Upstream};

/// A user of an app, as the token and the core say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub app: AppId,
    pub user: UserId,
    pub number: UserNumber,
}

type UserKey = (AppId, UserId);
type GrantKey = (AppId, GroupId, UserNumber);
type ChannelKey = (AppId, GroupId, ChannelId);
type Answered<T> = Result<T, Refused>;

#[derive(Debug, Clone)]
struct HeldGrant {
    grant: Grant,
    rights: Rights,
    until: Instant,
}

/// A grant, and whether it was made for this very request.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub grant: Grant,
    /// What it says.
    pub rights: Rights,
    pub fresh: bool,
}

/// What the edge knows of users, members and channels.
#[derive(Debug)]
pub(crate) struct Directory {
    upstream: Arc<Upstream>,
    users: Cache<UserKey, UserNumber>,
    grants: Cache<GrantKey, HeldGrant>,
    /// A grant that is forgotten while it is asked for is then not held.
    asking: Generations<GrantKey>,
    channels: Cache<ChannelKey, Arc<ChannelInfo>>,
    asked_users: Coalesce<UserKey, Answered<UserNumber>>,
    /// By generation as well: an answer from before a membership changed is nobody's after it.
    asked_grants: Coalesce<(GrantKey, u64), Answered<Grant>>,
    asked_channels: Coalesce<ChannelKey, Answered<Arc<ChannelInfo>>>,
}

impl Directory {
    pub fn new(upstream: Arc<Upstream>) -> Self {
        Self {
            upstream,
            users: Cache::new(USERS_MAX),
            grants: Cache::new(GRANTS_MAX),
            asking: Generations::default(),
            channels: Cache::new(CHANNEL_NAMES_MAX),
            asked_users: Coalesce::default(),
            asked_grants: Coalesce::default(),
            asked_channels: Coalesce::default(),
        }
    }

    /// A user's number.
    pub async fn user(&self, app: &AppId, user: &UserId, by: Deadline) -> Result<UserNumber, Refused> {
        let key = (app.clone(), user.clone());
        if let Some(number) = self.users.get(&key) {
            return Ok(number);
        }
        let upstream = Arc::clone(&self.upstream);
        let (app, user) = key.clone();
        let asked = self.asked_users.ask(key.clone(), || async move {
            let request = Request::User {
                app: app.clone(),
                user: user.clone(),
            };
            let placed = PlacementKey::Directory(&app, &user);
            match upstream.call_key(placed, &request, Deadline::start()).await? {
                Reply::User(number) => Ok(number),
                other => Err(Refused::unexpected(&other)),
            }
        });
        let number = within(by, asked).await?;
        self.users.insert(key, number);
        Ok(number)
    }

    /// A user's number, if there is one: a name that nobody has gets none by being asked for.
    pub async fn known_user(
        &self,
        app: &AppId,
        user: &UserId,
        by: Deadline,
    ) -> Result<Option<UserNumber>, Refused> {
        let key = (app.clone(), user.clone());
        if let Some(number) = self.users.get(&key) {
            return Ok(Some(number));
        }
        let request = Request::KnownUser {
            app: app.clone(),
            user: user.clone(),
        };
        let placed = PlacementKey::Directory(app, user);
        match self.upstream.call_key(placed, &request, by).await? {
            Reply::KnownUser(number) => {
                if let Some(number) = number {
                    self.users.insert(key, number);
                }
                Ok(number)
            }
            other => Err(Refused::unexpected(&other)),
        }
    }

    /// A grant of a member, held or fresh.
    pub async fn grant(&self, who: &Identity, group: &GroupId, by: Deadline) -> Result<Granted, Refused> {
        let key = (who.app.clone(), group.clone(), who.number);
        let held = self.grants.get(&key).filter(|held| held.until > Instant::now());
        match held {
            Some(HeldGrant { grant, rights, .. }) => Ok(Granted {
                grant,
                rights,
                fresh: false,
            }),
            None => self.fresh_grant(who, group, by).await,
        }
    }

    /// A grant made now.
    pub async fn fresh_grant(
        &self,
        who: &Identity,
        group: &GroupId,
        by: Deadline,
    ) -> Result<Granted, Refused> {
        match self.asked_grant(who, group, by).await {
            // Whoever asked for others did so before this request came, maybe before its user was let in.
            (Err(refused), false) if refused.is_of_grant() => self.asked_grant(who, group, by).await.0,
            (answered, _) => answered,
        }
    }

    /// Asks for a grant, or waits with others who ask for the same; whether it was asked for now.
    async fn asked_grant(
        &self,
        who: &Identity,
        group: &GroupId,
        by: Deadline,
    ) -> (Result<Granted, Refused>, bool) {
        let key = (who.app.clone(), group.clone(), who.number);
        let question = self.asking.ask(key.clone());
        let upstream = Arc::clone(&self.upstream);
        let (who, group) = (who.clone(), group.clone());
        let until = Instant::now() + GRANT_TTL;
        let mut fresh = false;
        let asked = self.asked_grants.ask((key.clone(), question.generation), || {
            // One that others have asked for may have been made before this request came.
            fresh = true;
            async move {
                let request = Request::Grant {
                    app: who.app.clone(),
                    group: group.clone(),
                    user: who.user,
                    number: who.number,
                };
                let placed = PlacementKey::Group(&who.app, &group);
                match upstream.call_key(placed, &request, Deadline::start()).await? {
                    Reply::Grant(grant) => Ok(grant),
                    other => Err(Refused::unexpected(&other)),
                }
            }
        });
        let answered = within(by, asked).await;
        let granted = answered.and_then(|grant| {
            let rights = rights(&grant)?;
            Ok(Granted { grant, rights, fresh })
        });
        match &granted {
            Ok(Granted { grant, rights, .. }) if question.holds() => {
                let (grant, rights) = (grant.clone(), *rights);
                self.grants.insert(key, HeldGrant { grant, rights, until });
            }
            Ok(_) => {}
            Err(_) => self.grants.remove(&key),
        }
        (granted, fresh)
    }

    /// Forgets a user's grant, because the membership or a right has changed.
    pub fn forget_grant(&self, app: &AppId, group: &GroupId, number: UserNumber) {
        let key = (app.clone(), group.clone(), number);
        self.asking.changed(&key);
        self.grants.remove(&key);
    }

    /// A channel by name. Channels are never renamed, so what is found stays found.
    pub async fn channel(
        &self,
        app: &AppId,
        group: &GroupId,
        channel: &ChannelId,
        by: Deadline,
    ) -> Result<Arc<ChannelInfo>, Refused> {
        let key = (app.clone(), group.clone(), channel.clone());
        if let Some(info) = self.channels.get(&key) {
            return Ok(info);
        }
        let upstream = Arc::clone(&self.upstream);
        let (app, group, channel) = key.clone();
        let asked = self.asked_channels.ask(key.clone(), || async move {
            let request = Request::Channel {
                app: app.clone(),
                group: group.clone(),
                channel,
            };
            let placed = PlacementKey::Group(&app, &group);
            match upstream.call_key(placed, &request, Deadline::start()).await? {
                Reply::Channel(info) => Ok(Arc::new(info)),
                other => Err(Refused::unexpected(&other)),
            }
        });
        let info = within(by, asked).await?;
        self.channels.insert(key, Arc::clone(&info));
        Ok(info)
    }
}

/// What a grant says. Its seal is for the shards: the edge has it from management itself.
fn rights(grant: &Grant) -> Result<Rights, Refused> {
    let claims = cluster::decode::<GrantClaims>(&grant.claims);
    claims.map(|claims| Rights::from(&claims)).map_err(|error| {
        tracing::error!(%error, "a grant cannot be read");
        Refused::new(Code::Internal, "the core gave a grant that cannot be read")
    })
}

async fn within<T>(by: Deadline, asked: impl Future<Output = Option<Answered<T>>>) -> Answered<T> {
    match timeout_at(by.at(), asked).await {
        Ok(Some(answered)) => answered,
        Ok(None) | Err(_) => Err(Refused::unavailable("the core did not answer in time")),
    }
}
