//! What every transport has to do: written once, run for all of them.

use super::inproc;
use super::network::Network;
use super::tcp::{Security, TcpSettings, connect};
use super::{Lost, Transport};
use crate::dist::frame::{Frame, Kind, Limits};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Patience for what must come.
const LONG: Duration = Duration::from_secs(20);
/// The longest payload of [`Kind::Rows`].
const MOST: usize = 8 << 20;
const ATTEMPT: u32 = 3;

type Mesh = Vec<Box<dyn Transport>>;
type Make = fn(usize, &Limits, Option<Network>) -> Mesh;

fn limits() -> Limits {
    let mut limits = Limits::none();
    limits.allow(Kind::Rows, MOST as u64);
    limits.allow(Kind::Report, 8);
    limits
}

fn frame(from: usize, kind: Kind, step: u64, payload: Vec<u8>) -> Arc<[u8]> {
    Frame { kind, part: 0, attempt: ATTEMPT, from: from as u32, step, payload }.encode().into()
}

fn bye(from: usize, text: &str) -> Arc<[u8]> {
    frame(from, Kind::Bye, 0, text.as_bytes().to_vec())
}

/// Plays every rank in a thread of its own.
fn play(mesh: Mesh, rank: impl Fn(&mut dyn Transport) + Sync) {
    std::thread::scope(|scope| {
        for mut end in mesh {
            let rank = &rank;
            scope.spawn(move || {
                rank(&mut *end);
                for to in others(&*end) {
                    let _ = end.send(to, &bye(end.rank(), ""));
                }
            });
        }
    });
}

fn others(end: &dyn Transport) -> impl Iterator<Item = usize> + use<> {
    let me = end.rank();
    (0..end.world()).filter(move |&r| r != me)
}

fn next(end: &mut dyn Transport) -> (usize, Frame) {
    end.receive(LONG).unwrap().expect("a frame")
}

/// The first end of a peer that is noticed.
fn lost(end: &mut dyn Transport) -> Lost {
    end.receive(LONG).expect_err("the loss of a peer")
}

/// The two ends of a mesh of two.
fn pair(make: Make) -> [Box<dyn Transport>; 2] {
    make(2, &limits(), None).try_into().unwrap()
}

fn ranks_know_who_they_are(make: Make) {
    for world in [1, 2, 5] {
        for (i, end) in make(world, &limits(), None).iter_mut().enumerate() {
            assert_eq!((end.rank(), end.world()), (i, world));
            assert!(end.send(i, &frame(i, Kind::Rows, 0, vec![])).is_err(), "to itself");
            assert!(end.send(world, &frame(i, Kind::Rows, 0, vec![])).is_err(), "to nobody");
        }
    }
    let mut alone = make(1, &limits(), None).remove(0);
    let began = Instant::now();
    assert_eq!(alone.receive(Duration::from_millis(30)), Ok(None));
    assert!(began.elapsed() >= Duration::from_millis(30));
}

fn frames_of_a_peer_arrive_in_order(make: Make, network: Option<Network>) {
    const COUNT: u64 = 200;
    play(make(4, &limits(), network), |end| {
        let me = end.rank();
        for step in 0..COUNT {
            let len = (step as usize * 37) % 5000;
            let bytes = frame(me, Kind::Rows, step, vec![me as u8; len]);
            others(end).for_each(|to| end.send(to, &bytes).unwrap());
        }
        let mut due = vec![0; end.world()];
        for _ in 0..3 * COUNT {
            let (from, frame) = next(end);
            assert_eq!((frame.from as usize, frame.step), (from, due[from]));
            assert_eq!(frame.payload, vec![from as u8; (due[from] as usize * 37) % 5000]);
            due[from] += 1;
        }
    });
}

fn everybody_sends_much_before_anybody_receives(make: Make, network: Option<Network>, ranks: usize, len: usize) {
    let together = std::sync::Barrier::new(ranks);
    play(make(ranks, &limits(), network), |end| {
        let me = end.rank();
        let bytes = frame(me, Kind::Rows, 1, vec![me as u8 + 1; len]);
        others(end).for_each(|to| end.send(to, &bytes).unwrap());
        together.wait();
        for _ in others(end) {
            let (from, frame) = next(end);
            assert!(frame.payload.len() == len && frame.payload.iter().all(|&b| b == from as u8 + 1));
        }
    });
}

fn large_and_empty_frames(make: Make) {
    play(make(2, &limits(), None), |end| {
        let other = 1 - end.rank();
        for len in [0, 1, MOST, 0, 65_536] {
            end.send(other, &frame(end.rank(), Kind::Rows, len as u64, vec![7; len])).unwrap();
            end.send(other, &frame(end.rank(), Kind::Barrier, 0, vec![])).unwrap();
        }
        for len in [0, 1, MOST, 0, 65_536] {
            let (_, rows) = next(end);
            assert_eq!((rows.payload.len(), rows.step), (len, len as u64));
            assert_eq!(next(end).1.kind, Kind::Barrier);
        }
    });
}

fn no_patience_means_no_waiting(make: Make) {
    let [mut a, mut b] = pair(make);
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(a.receive(Duration::ZERO), Ok(None));
    }
    assert!(began.elapsed() < LONG / 4);
    b.send(0, &frame(1, Kind::Report, 5, vec![1])).unwrap();
    b.flush(LONG);
    let found = loop {
        assert!(began.elapsed() < LONG);
        if let Some(found) = a.receive(Duration::ZERO).unwrap() {
            break found;
        }
        std::thread::yield_now();
    };
    assert_eq!((found.0, found.1.step), (1, 5));
}

fn a_finished_peer_is_no_loss(make: Make, network: Option<Network>) {
    let mut mesh = make(3, &limits(), network);
    let mut gone = mesh.remove(1);
    for to in [0, 2] {
        gone.send(to, &frame(1, Kind::Report, 9, vec![])).unwrap();
        gone.send(to, &bye(1, "")).unwrap();
    }
    drop(gone);
    for mut end in mesh {
        assert_eq!(next(&mut *end).1.step, 9);
        assert_eq!(end.receive(Duration::from_millis(50)), Ok(None), "the closing is no loss");
        let refused = end.send(1, &frame(end.rank(), Kind::Report, 0, vec![])).unwrap_err();
        assert_eq!(refused, Lost { rank: 1, reason: "has finished".into() });
        let other = 2 - end.rank();
        // The other one may be gone already.
        let _ = end.send(other, &bye(end.rank(), ""));
    }
}

fn a_reason_reaches_everybody(make: Make, network: Option<Network>) {
    let mut mesh = make(3, &limits(), network);
    let mut failing = mesh.remove(0);
    for to in [1, 2] {
        failing.send(to, &frame(0, Kind::Rows, 4, vec![1; 100_000])).unwrap();
        failing.send(to, &bye(0, "disk full\u{1b}[2J")).unwrap();
    }
    drop(failing);
    for mut end in mesh {
        assert_eq!(next(&mut *end).1.step, 4, "what it sent before still comes");
        let expected = Lost { rank: 0, reason: "ended: disk full [2J".into() };
        assert_eq!(lost(&mut *end), expected);
        assert_eq!(end.send(0, &frame(end.rank(), Kind::Rows, 0, vec![])).unwrap_err(), expected);
        let other = 3 - end.rank();
        let _ = end.send(other, &bye(end.rank(), ""));
    }
}

fn a_sudden_end_is_noticed(make: Make, reason: &str, network: Option<Network>) {
    let mut mesh = make(3, &limits(), network);
    let mut failing = mesh.remove(2);
    failing.send(0, &frame(2, Kind::Report, 4, vec![])).unwrap();
    drop(failing);
    assert_eq!(next(&mut *mesh[0]).1.step, 4);
    for end in &mut mesh {
        assert_eq!(lost(&mut **end), Lost { rank: 2, reason: reason.into() });
        assert_eq!(end.receive(Duration::from_millis(20)), Ok(None), "said once");
    }
    // The others go on.
    mesh[1].send(0, &frame(1, Kind::Report, 8, vec![])).unwrap();
    assert_eq!(next(&mut *mesh[0]).1.step, 8);
}

fn what_is_no_frame_is_a_loss(make: Make) {
    let fails = |bytes: Arc<[u8]>, expected: &str| {
        let [mut a, mut b] = pair(make);
        b.send(0, &bytes).unwrap();
        let lost = lost(&mut *a);
        assert!(lost.rank == 1 && lost.reason.contains(expected), "{lost:?}");
    };
    fails(frame(1, Kind::Report, 0, vec![0; 9]), "announced 9 bytes of Report; this model allows 8");
    fails(frame(1, Kind::Hashes, 0, vec![0]), "announced 1 bytes of Hashes");
    fails(frame(0, Kind::Report, 0, vec![]), "says it is from rank 0");
    fails(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..].into(), "no frame");
    let stale = Frame { kind: Kind::Report, part: 0, attempt: 2, from: 1, step: 0, payload: vec![] };
    fails(stale.encode().into(), "belongs to attempt 2 of the job, here it is 3");
    let mut flipped = frame(1, Kind::Rows, 0, vec![0; 1000]).to_vec();
    flipped[500] ^= 4;
    fails(flipped.into(), "damaged frame of Rows");
}

fn flushed_frames_survive_the_sender(make: Make, network: Option<Network>) {
    let [mut a, mut b] = make(2, &limits(), network).try_into().unwrap();
    b.send(0, &frame(1, Kind::Rows, 1, vec![3; MOST])).unwrap();
    b.send(0, &bye(1, "")).unwrap();
    b.flush(LONG);
    b.flush(Duration::ZERO);
    drop(b);
    assert_eq!(next(&mut *a).1.payload.len(), MOST);
    assert_eq!(a.receive(Duration::from_millis(20)), Ok(None));
}

/// The suite, for a transport whose peers say `sudden` of one that was dropped.
fn conforms(make: Make, sudden: &str) {
    ranks_know_who_they_are(make);
    frames_of_a_peer_arrive_in_order(make, None);
    large_and_empty_frames(make);
    everybody_sends_much_before_anybody_receives(make, None, 4, MOST);
    no_patience_means_no_waiting(make);
    a_finished_peer_is_no_loss(make, None);
    a_reason_reaches_everybody(make, None);
    a_sudden_end_is_noticed(make, sudden, None);
    what_is_no_frame_is_a_loss(make);
    flushed_frames_survive_the_sender(make, None);
}

/// The part of the suite that time has to do with, on a network that is made slower.
fn conforms_when_shaped(make: Make, sudden: &str) {
    let network: Option<Network> = "1Gbps,0.2ms".parse().ok();
    frames_of_a_peer_arrive_in_order(make, network);
    a_finished_peer_is_no_loss(make, network);
    a_reason_reaches_everybody(make, network);
    a_sudden_end_is_noticed(make, sudden, network);
    flushed_frames_survive_the_sender(make, network);
    // Two of 2 MB leave each link and come in over it: 32 ms each way at least, the second behind the first.
    let began = Instant::now();
    everybody_sends_much_before_anybody_receives(make, network, 3, 2_000_000);
    assert!(began.elapsed() >= Duration::from_millis(32), "{:?}", began.elapsed());
}

fn in_process(world: usize, limits: &Limits, network: Option<Network>) -> Mesh {
    inproc::mesh(world, limits, ATTEMPT, network).into_iter().map(|end| Box::new(end) as Box<dyn Transport>).collect()
}

#[test]
fn in_process_conforms() {
    conforms(in_process, "ended without a word");
    conforms_when_shaped(in_process, "ended without a word");
}

/// Connects `world` ranks over the loopback, with settings changed by `change`.
fn over_tcp(world: usize, limits: &Limits, network: Option<Network>, change: impl Fn(&mut TcpSettings) + Sync) -> Mesh {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut listener = Some(listener);
    std::thread::scope(|scope| {
        let connecting: Vec<_> = (0..world)
            .map(|rank| {
                let mut settings = TcpSettings::new(rank, world, "127.0.0.1", vec![port], limits.clone());
                (settings.attempt, settings.network, settings.connect) = (ATTEMPT, network, LONG);
                settings.listener = listener.take();
                change(&mut settings);
                scope.spawn(move || Box::new(connect(settings).unwrap()) as Box<dyn Transport>)
            })
            .collect();
        connecting.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn tcp_conforms() {
    let make: Make = |world, limits, network| over_tcp(world, limits, network, |_| {});
    conforms(make, "closed the connection");
    conforms_when_shaped(make, "closed the connection");
}

#[test]
fn tcp_with_a_secret_conforms() {
    let make: Make = |world, limits, network| {
        over_tcp(world, limits, network, |settings| {
            settings.secret = Some(b"a secret of the job".to_vec().into());
            settings.facts = vec![("model".into(), "3f2a".into()), ("data".into(), "77b1".into())];
        })
    };
    conforms(make, "closed the connection");
}

#[test]
fn tcp_with_tls_conforms() {
    let make: Make = |world, limits, network| {
        over_tcp(world, limits, network, |settings| {
            settings.secret = Some(b"a secret of the job".to_vec().into());
            settings.security = Security::Tls;
        })
    };
    conforms(make, "closed the connection");
    conforms_when_shaped(make, "closed the connection");
}
