//! The handshake without sockets: what is changed, cut or moved proves nothing.

use super::handshake::{Acceptor, Answer, Binding, Connector, LENGTH, Offer, key};
use crate::rng::Stream;

fn offer() -> Offer {
    Offer {
        job: "job".into(),
        attempt: 1,
        rank: 2,
        world: 4,
        address: Some("2001:db8::1".parse().unwrap()),
        port: 4000,
        facts: vec![("model".into(), "3f2a".into()), (String::new(), "ü".into())],
    }
}

const A: Binding = [1; 32];
const B: Binding = [2; 32];

/// A handshake up to the offer, with the bindings of both sides.
fn meet(acceptor: Binding, connector: Binding) -> (Acceptor, Connector, Vec<u8>) {
    let key = key(Some(b"secret"), "job");
    let (acceptor, hello) = Acceptor::new(&key, acceptor).unwrap();
    let (connector, sealed) = Connector::offer(&key, connector, &hello, &offer()).unwrap();
    (acceptor, connector, sealed[LENGTH..].to_vec())
}

#[test]
fn an_offer_and_its_answer_are_understood() {
    for answer in [Answer::Welcome(7), Answer::Refused { again: true, reason: "no".into() }] {
        let (mut acceptor, connector, sealed) = meet(A, A);
        assert_eq!(acceptor.offer(&sealed), Ok(offer()));
        let (sent, theirs) = acceptor.answer(&answer);
        let (found, mine) = connector.answer(&sent[LENGTH..]).unwrap();
        assert_eq!(found, answer);
        let roster = theirs.seal("roster", b"list");
        assert_eq!(mine.open("roster", &roster[LENGTH..]), Some(&b"list"[..]));
        assert_eq!(mine.open("answer", &roster[LENGTH..]), None, "for one purpose only");
    }
}

#[test]
fn no_bit_of_a_message_can_be_changed() {
    let (mut acceptor, connector, sealed) = meet(A, A);
    for bit in 0..8 * sealed.len() {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(acceptor.offer(&changed).is_err(), "bit {bit}");
    }
    (0..sealed.len()).for_each(|len| assert!(acceptor.offer(&sealed[..len]).is_err(), "cut to {len}"));
    acceptor.offer(&sealed).unwrap();
    let answer = acceptor.answer(&Answer::Welcome(0)).0;
    let mut changed = answer[LENGTH..].to_vec();
    changed[1] = 9;
    assert!(connector.answer(&changed).is_err());
}

#[test]
fn proofs_belong_to_one_connection_and_one_direction() {
    let (mut acceptor, _, sealed) = meet(A, B);
    assert!(acceptor.offer(&sealed).is_err(), "another channel");
    let (mut acceptor, _, _) = meet(A, A);
    assert!(acceptor.offer(&meet(A, A).2).is_err(), "another nonce");
    let (_, connector, sealed) = meet(A, A);
    assert!(connector.answer(&sealed).is_err(), "sent back");
    let (hello, other) = (Acceptor::new(&key(None, "secret"), A).unwrap().1, key(None, "job"));
    let sealed = Connector::offer(&other, A, &hello, &offer()).unwrap().1;
    assert!(meet(A, A).0.offer(&sealed[LENGTH..]).is_err(), "a name is no secret");
}

#[test]
fn noise_is_refused_without_a_panic() {
    let noise = Stream::new(1, 2);
    for i in 0..2000u64 {
        let bytes: Vec<u8> = (0..noise.below(i, 300)).map(|j| noise.sub(i).bits(j) as u8).collect();
        let (mut acceptor, connector, _) = meet(A, A);
        assert!(acceptor.offer(&bytes).is_err());
        assert!(Connector::offer(&key(None, ""), A, &bytes, &offer()).is_err());
        assert!(connector.answer(&bytes).is_err());
        // Well proven nonsense: a worker of the job that speaks in tongues.
        let (mut acceptor, hello) = Acceptor::new(&key(Some(b"secret"), "job"), A).unwrap();
        let strange = Offer { job: String::from_utf8_lossy(&bytes).into(), facts: vec![Default::default(); bytes.len()], ..offer() };
        let sealed = Connector::offer(&key(Some(b"secret"), "job"), A, &hello, &strange).unwrap().1;
        assert_eq!(acceptor.offer(&sealed[LENGTH..]), Ok(strange));
    }
}
