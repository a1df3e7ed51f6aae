//! `throng chat`: a channel, line by line.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use throng_client::{
    Change, ChannelId, Client, Code, Direction, Entry, EntryKind, Epoch, Event, Fenced, From, GroupId, Hole,
    Position, RequestError, Seq, UserId, UserNumber,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;

use super::cluster_file::ClusterFile;
use super::failure::{Exit, Failure};
use super::sdk::{self, Sdk};
use super::signals::Signals;
use super::tell;

/// Lines of history shown at the start: a terminal's worth.
const HISTORY: u32 = 20;

/// How long a line is retried before chat says that it was not sent.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a line may be beside a message; messages are named by the number before them.
const COMMANDS: &str = "/modify N TEXT, /recall N, /delete N, /set N KEY VALUE, /unset N KEY, /kick USER, \
                        /mute USER SECONDS (0 ends it)";

/// The arguments of `throng chat`.
#[derive(Debug, Clone, clap::Args)]
pub struct ChatArgs {
    /// Folder of a running cluster
    #[arg(long)]
    cluster: PathBuf,
    /// Who speaks
    #[arg(long)]
    user: String,
    /// The group; made if it is not there
    #[arg(long)]
    group: String,
    /// The channel; made if it is not there
    #[arg(long)]
    channel: String,
    /// A token to use instead of one signed with the cluster's secret
    #[arg(long)]
    token: Option<String>,
}

/// Chats until the input ends or a signal comes.
pub async fn run(args: ChatArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::listen(false)?;
    let (group, channel) = (sdk::group(&args.group)?, sdk::channel(&args.channel)?);
    let sdk = Sdk::new(&ClusterFile::read(&args.cluster)?, PATIENCE)?;
    let client = match &args.token {
        Some(token) => sdk.connect_with_token(token, "chat").await?,
        None => sdk.connect(&args.user, "chat").await?,
    };
    sdk::found(&client, &group).await?;
    let made = client.create_channel(&group, &channel).await;
    made.map_err(|error| sdk::refused("the channel cannot be made", &args.channel, &error))?;
    let outcome = tokio::select! {
        outcome = converse(&client, &group, &channel) => outcome,
        () = signals.next() => Ok(()),
    };
    client.close().await;
    outcome.map(|()| Exit::Holds)
}

async fn converse(client: &Client, group: &GroupId, channel: &ChannelId) -> Result<(), Failure> {
    let failed = |error: &RequestError| sdk::refused("the channel cannot be read", channel.as_str(), error);
    // Subscribed first, so that nothing falls between history and what comes live.
    let mut live = client
        .subscribe(group, channel, From::Head)
        .await
        .map_err(|error| failed(&error))?;
    let end = Seq(live.start().seq.0.saturating_add(1));
    let page = client
        .history(group, channel, end, Direction::Before, HISTORY)
        .await
        .map_err(|error| failed(&error))?;
    // The messages that can be named: those on the screen, of this log.
    let mut named = Named::new(live.start().epoch);
    page.entries.iter().for_each(|entry| named.show(entry));
    tell::note(format_args!(
        "{group}/{channel}: a line is a message; {COMMANDS}; Ctrl-D ends"
    ));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut said = JoinSet::new();
    loop {
        tokio::select! {
            event = live.recv_event() => match event {
                Some(Event::Delivery(delivery)) => named.show(&delivery.entry()),
                Some(Event::Reset { from, to }) => {
                    named.enter(to.epoch);
                    tell::note(format_args!(
                        "you were out of the group, or its log was rebuilt: nothing is shown between {} and {}",
                        from.seq, to.seq
                    ));
                }
                None => return Err(over(group, channel, live.ended())),
            },
            line = lines.next_line() => match line {
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => {
                    let place = (group.clone(), channel.clone());
                    match named.resolve(read(&line)) {
                        Ok(asked) => drop(said.spawn(say(client.clone(), place, (line, asked)))),
                        Err(why) => tell::note(format_args!("not done: {line}\n     why: {why}")),
                    }
                }
                // What was typed before the end is still sent.
                _ => break,
            },
            Some(_) = said.join_next() => {}
        }
    }
    while said.join_next().await.is_some() {}
    Ok(())
}

/// Why nothing is delivered any more.
fn over(group: &GroupId, channel: &ChannelId, why: Option<&RequestError>) -> Failure {
    match why {
        Some(error) if error.code == Some(Code::NotMember) => Failure::new(
            "you are no member of the group any more",
            group.as_str(),
            "start chat again to join",
        ),
        Some(error) => sdk::refused("the channel is delivered no more", channel.as_str(), error),
        None => Failure::new("the session has ended", channel.as_str(), "start chat again"),
    }
}

/// The messages that are shown, which lines may name by their numbers.
struct Named {
    epoch: Epoch,
    shown: BTreeSet<Seq>,
}

impl Named {
    fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            shown: BTreeSet::new(),
        }
    }

    fn show(&mut self, entry: &Entry) {
        self.shown.insert(entry.seq);
        tell::say(format_args!("{:>6}  {}", entry.seq, line_of(entry)));
    }

    /// In another log the numbers on the screen are of other messages.
    fn enter(&mut self, epoch: Epoch) {
        if self.epoch != epoch {
            *self = Self::new(epoch);
        }
    }

    /// What a line asks for, with the position of the message that it names.
    fn resolve(&self, line: Line) -> Result<Asked, &'static str> {
        Ok(match line {
            Line::Message(text) => Asked::Message(text),
            Line::Kick(user) => Asked::Kick(user),
            Line::Mute(user, span) => Asked::Mute(user, span),
            Line::Change(seq, change) if self.shown.contains(&seq) => {
                let epoch = self.epoch;
                Asked::Change(Position { epoch, seq }, change)
            }
            Line::Change(..) => return Err("no message of that number is shown here"),
            Line::Wrong(why) => return Err(why),
        })
    }
}

/// What is to be carried out.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Message(String),
    Kick(UserId),
    Mute(UserId, Duration),
    Change(Position, Change),
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Message(String),
    Kick(UserId),
    Mute(UserId, Duration),
    /// A change to the message at a place.
    Change(Seq, Change),
    /// A command that cannot be understood, and why.
    Wrong(&'static str),
}

/// Reads a line. A message that begins with a slash is written with two.
fn read(line: &str) -> Line {
    let Some(command) = line.strip_prefix('/') else {
        return Line::Message(line.to_owned());
    };
    if command.starts_with('/') {
        return Line::Message(command.to_owned());
    }
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["kick", user] => UserId::new(user).map_or(Line::Wrong("that is no user's name"), Line::Kick),
        ["mute", user, seconds] => match (UserId::new(user), seconds.parse()) {
            (Ok(user), Ok(seconds)) => Line::Mute(user, Duration::from_secs(seconds)),
            (Ok(_), Err(_)) => Line::Wrong("SECONDS is a whole number"),
            (Err(_), _) => Line::Wrong("that is no user's name"),
        },
        ["kick", ..] => Line::Wrong("write /kick USER"),
        ["mute", ..] => Line::Wrong("write /mute USER SECONDS"),
        ["modify" | "recall" | "delete" | "set" | "unset", ..] => read_change(command),
        _ => Line::Wrong("there is no such command; a message begins with two slashes"),
    }
}

/// Reads a command that changes a message: the text of a body or a value is the rest of the line as it is.
fn read_change(command: &str) -> Line {
    let Some((word, rest)) = command.split_once(' ') else {
        return Line::Wrong("name the message by the number before it");
    };
    let (seq, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let Ok(seq) = seq.parse().map(Seq) else {
        return Line::Wrong("name the message by the number before it");
    };
    let change = match (word, rest.split_once(' ')) {
        ("modify", _) if rest.is_empty() => return Line::Wrong("write /modify NUMBER TEXT"),
        ("modify", _) => Change::Modify {
            body: rest.to_owned().into(),
        },
        ("recall", _) if rest.is_empty() => Change::Recall,
        ("delete", _) if rest.is_empty() => Change::Delete,
        ("set", Some((key, value))) => Change::Expand {
            set: vec![(key.to_owned(), value.to_owned())],
            remove: Vec::new(),
        },
        ("unset", None) if !rest.is_empty() => Change::Expand {
            set: Vec::new(),
            remove: vec![rest.to_owned()],
        },
        _ => return Line::Wrong("write /recall N, /delete N, /set N KEY VALUE or /unset N KEY"),
    };
    Line::Change(seq, change)
}

/// Carries a line out beside the conversation.
async fn say(client: Client, (group, channel): (GroupId, ChannelId), (line, asked): (String, Asked)) {
    let (what, outcome) = match asked {
        Asked::Message(text) => return speak(client, group, channel, text).await,
        Asked::Change(target, change) => {
            // It shows when it is delivered.
            if let Err(error) = client.change(&group, &channel, target, change).await {
                tell::note(format_args!("not done: {line}\n     why: {error}"));
            }
            return;
        }
        Asked::Kick(user) => (format!("{user} is kicked"), client.kick(&group, &user).await),
        Asked::Mute(user, Duration::ZERO) => (
            format!("{user} may send again"),
            client.mute_until(&group, &user, 0).await,
        ),
        Asked::Mute(user, span) => (
            format!("{user} is muted for {} s", span.as_secs()),
            client.mute(&group, &user, span).await,
        ),
    };
    match outcome {
        Ok(fenced) if fenced.is_done() => tell::note(format_args!("{what}")),
        Ok(fenced) => tell::note(format_args!("{what}, but not yet in {}", pending(&fenced))),
        Err(error) => tell::note(format_args!("not done: {line}\n     why: {error}")),
    }
}

/// The channels in which it does not hold yet.
fn pending(fenced: &Fenced) -> String {
    let names: Vec<&str> = fenced.pending.iter().map(ChannelId::as_str).collect();
    match fenced.more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Sends a line beside the conversation; it shows up when it is delivered.
async fn speak(client: Client, group: GroupId, channel: ChannelId, line: String) {
    if let Err(error) = client.send(&group, &channel, line.clone()).await {
        tell::note(format_args!("not sent: {line}\n     why: {error}"));
    }
}

/// An entry as a line. Names, bodies, keys and values are anybody's; what could steer the terminal is shown,
/// not obeyed.
fn line_of(entry: &Entry) -> String {
    let plain = |text: &str| text.chars().flat_map(visible).collect::<String>();
    let sender = match entry.sender_number {
        // A user may have the app's name.
        UserNumber(0) => format!("{} (the app)", entry.sender),
        _ => entry.sender.to_string(),
    };
    let body = plain(&String::from_utf8_lossy(&entry.body));
    let set = entry.expansion.iter();
    let mut keys: Vec<String> = set
        .map(|(key, value)| format!("{}={}", plain(key), plain(value)))
        .collect();
    keys.extend(entry.removed.iter().map(|key| format!("{} removed", plain(key))));
    let keys = match keys.is_empty() {
        true => String::new(),
        false => format!(" [{}]", keys.join(", ")),
    };
    let gone = match entry.hole {
        0 => None,
        hole if hole == Hole::Recalled.number() => Some("recalled"),
        _ => Some("deleted"),
    };
    match (entry.target, gone) {
        (Seq(0), None) if entry.version != Seq(0) => format!("{sender}: {body}{keys} (changed)"),
        (Seq(0), None) => format!("{sender}: {body}{keys}"),
        (Seq(0), Some(gone)) => format!("{sender}: ({gone})"),
        (target, Some(gone)) => format!("* {sender} changed {target}, which was {gone}"),
        (target, None) if entry.kind == EntryKind::Modify.number() => {
            format!("* {sender} changed {target}: {body}")
        }
        (target, None) => format!("* {sender} changed {target}:{keys}"),
    }
}

fn visible(c: char) -> Vec<char> {
    if c.is_control() {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use throng_client::{ClientMessageId, Ts};

    use super::*;

    #[test]
    fn a_line_with_a_slash_is_a_command_and_any_other_a_message() {
        let user = |name| UserId::new(name).unwrap();
        assert_eq!(
            read("hello /kick bob"),
            Line::Message("hello /kick bob".to_owned())
        );
        assert_eq!(read("//etc"), Line::Message("/etc".to_owned()));
        assert_eq!(read("/kick bob"), Line::Kick(user("bob")));
        assert_eq!(
            read("/mute bob 60"),
            Line::Mute(user("bob"), Duration::from_secs(60))
        );
        assert_eq!(read("/mute  bob  0 "), Line::Mute(user("bob"), Duration::ZERO));
    }

    #[test]
    fn the_app_itself_is_told_from_a_user_of_its_name() {
        let entry = |number| Entry {
            seq: Seq(1),
            ts: Ts(1),
            kind: EntryKind::Message.number(),
            sender: UserId::new("demo").unwrap(),
            sender_number: UserNumber(number),
            client_message_id: ClientMessageId(1),
            body: Bytes::from_static(b"hello"),
            target: Seq(0),
            version: Seq(0),
            hole: 0,
            expansion: Vec::new(),
            removed: Vec::new(),
            keys_elsewhere: false,
        };
        assert_eq!(line_of(&entry(7)), "demo: hello");
        assert_eq!(line_of(&entry(0)), "demo (the app): hello");
    }

    #[test]
    fn a_command_that_is_not_understood_is_not_sent_as_a_message() {
        let long = format!("/kick {}", "x".repeat(65));
        for line in [
            "/",
            "/kick",
            "/kick bob eve",
            "/mute bob",
            "/mute bob soon",
            "/mute bob -1",
            "/ban bob",
            &long,
        ] {
            assert!(matches!(read(line), Line::Wrong(_)), "{line}");
        }
    }

    #[test]
    fn a_change_names_its_message_and_takes_the_rest_of_the_line_as_it_is() {
        let expand = |set: &[(&str, &str)], remove: &[&str]| Change::Expand {
            set: set
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            remove: remove.iter().map(|key| (*key).to_owned()).collect(),
        };
        let body = "two  spaces".into();
        for (line, seq, change) in [
            ("/modify 7 two  spaces", 7, Change::Modify { body }),
            ("/recall 7", 7, Change::Recall),
            ("/delete 12", 12, Change::Delete),
            ("/set 7 like 3 of 5", 7, expand(&[("like", "3 of 5")], &[])),
            ("/unset 7 like", 7, expand(&[], &["like"])),
        ] {
            assert_eq!(read(line), Line::Change(Seq(seq), change), "{line}");
        }
        for line in [
            "/modify",
            "/modify 7",
            "/modify x y",
            "/recall",
            "/recall 7 8",
            "/set 7 like",
            "/unset 7",
        ] {
            assert!(matches!(read(line), Line::Wrong(_)), "{line}");
        }
    }

    #[test]
    fn only_what_is_shown_of_this_log_can_be_named() {
        let mut named = Named::new(Epoch(1));
        named.shown.insert(Seq(7));
        let at = |epoch| Position {
            epoch: Epoch(epoch),
            seq: Seq(7),
        };
        assert_eq!(
            named.resolve(read("/recall 7")),
            Ok(Asked::Change(at(1), Change::Recall))
        );
        assert!(named.resolve(read("/recall 8")).is_err());
        named.enter(Epoch(1));
        assert!(named.resolve(read("/recall 7")).is_ok());
        named.enter(Epoch(2));
        assert!(named.resolve(read("/recall 7")).is_err(), "it was of another log");
    }

    #[test]
    fn control_characters_are_shown_and_letters_stay() {
        let text: String = "a\u{1b}[2Jé".chars().flat_map(visible).collect();
        assert_eq!(text, "a\\u{1b}[2Jé");
    }
}
