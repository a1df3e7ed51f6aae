//! A subscription that is asked for while the one before it still ends.

use super::*;

#[test]
fn a_subscription_that_missed_its_deadline_does_not_begin_when_the_one_before_it_has_ended() {
    let mut machine = machine();
    open(&mut machine, 0);
    let from = SubscribeFrom::Head;
    machine.subscribe(0, group(), channel("a"), from).unwrap();
    let request = request_of(&sent(&mut machine)[0]);
    feed(&mut machine, 0, subscribed(request, at(1, 10), Start::Head));
    // The edge never answers this, so the next one waits for its turn.
    machine.unsubscribe(0, group(), channel("a")).unwrap();
    let late = machine.subscribe(1, group(), channel("a"), from).unwrap();
    events(&mut machine);
    machine.handle_timeout(120_001);
    let told = events(&mut machine);
    let failed = told.iter().any(|event| {
        matches!(event, ClientEvent::Answered { op, outcome: Err(RequestError::Deadline { .. }) } if *op == late)
    });
    assert!(failed, "{told:?}");
    machine.handle_disconnected(120_002);
    sent(&mut machine);
    open(&mut machine, 120_003);
    let said = sent(&mut machine);
    let asked = said
        .iter()
        .any(|message| matches!(message, Message::Subscribe(_) | Message::Resume(_)));
    assert!(!asked, "the application was told that it failed: {said:?}");
    assert!(machine.positions().is_empty());
    assert!(machine.subscribe(120_004, group(), channel("a"), from).is_ok());
}
