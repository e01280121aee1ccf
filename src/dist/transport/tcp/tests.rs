//! What goes wrong between workers: strangers at the door, jobs that were started wrongly, networks that break.

use super::handshake::{Answer, Connector, HELLO, LENGTH, LONGEST, Offer, key};
use super::pipe::Pipe;
use super::tls::{Configs, End};
use super::*;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{sleep, spawn};

/// Patience for what must come.
const LONG: Duration = Duration::from_secs(15);
const SECRET: &[u8] = b"a secret of the job";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn limits() -> Limits {
    let mut limits = Limits::none();
    limits.allow(Kind::Rows, 8 << 20);
    limits
}

fn frame(from: usize, kind: Kind, payload: Vec<u8>) -> Arc<[u8]> {
    Frame { kind, part: 0, attempt: 1, from: from as u32, step: 0, payload }.encode().into()
}

fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Settings of rank `rank` that meet at `port`.
fn settings(rank: usize, world: usize, port: u16) -> TcpSettings {
    let mut settings = TcpSettings::new(rank, world, "127.0.0.1", vec![port], limits());
    (settings.attempt, settings.connect, settings.secret) = (1, LONG, Some(SECRET.to_vec().into()));
    settings.facts = vec![("model".into(), "3f2a".into()), ("data".into(), "77b1".into())];
    settings
}

/// Starts a job whose ranks' settings are changed by `change`; rank 0 has a listener.
fn job(world: usize, change: impl Fn(usize, &mut TcpSettings)) -> Vec<Result<Tcp>> {
    let (listener, address) = bind();
    let mut listener = Some(listener);
    let ranks: Vec<_> = (0..world)
        .map(|rank| {
            let mut settings = settings(rank, world, address.port());
            settings.listener = listener.take();
            change(rank, &mut settings);
            spawn(move || connect(settings))
        })
        .collect();
    ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
}

fn errors(results: Vec<Result<Tcp>>) -> Vec<String> {
    results.into_iter().map(|result| result.expect_err("a job that does not begin").to_string()).collect()
}

/// Two ranks, of which rank 1 goes to `place` to find rank 0, whose listener is given.
fn pair_through(listener: TcpListener, place: SocketAddr, change: impl Fn(&mut TcpSettings)) -> [Tcp; 2] {
    let mut zero = settings(0, 2, listener.local_addr().unwrap().port());
    zero.listener = Some(listener);
    let mut one = settings(1, 2, place.port());
    change(&mut zero);
    change(&mut one);
    let zero = spawn(move || connect(zero).unwrap());
    let one = connect(one).unwrap();
    [zero.join().unwrap(), one]
}

fn lost(end: &mut Tcp) -> Lost {
    end.receive(LONG).expect_err("the loss of a peer")
}

/// A proxy between two ranks that can break things. It forwards one connection.
#[derive(Debug, Default)]
struct Weather {
    /// Forwards nothing any more, and reads nothing: to the listener, from it.
    stuck: [AtomicBool; 2],
    /// Closes everything.
    cut: AtomicBool,
    /// Flips a bit of the byte that comes after so many, on the way to the listener; 0 for none.
    flip: AtomicUsize,
}

fn proxy(to: SocketAddr) -> (SocketAddr, Arc<Weather>) {
    let (listener, address) = bind();
    let weather = Arc::<Weather>::default();
    let shared = weather.clone();
    spawn(move || {
        let (inside, _) = listener.accept().unwrap();
        let outside = TcpStream::connect(to).unwrap();
        for (way, from, to) in [(0, &inside, &outside), (1, &outside, &inside)] {
            let (from, to, weather) = (from.try_clone().unwrap(), to.try_clone().unwrap(), shared.clone());
            spawn(move || forward(way, from, to, &weather));
        }
    });
    (address, weather)
}

fn forward(way: usize, mut from: TcpStream, mut to: TcpStream, weather: &Weather) {
    let mut bytes = vec![0; 1 << 16];
    from.set_read_timeout(Some(ms(5))).unwrap();
    loop {
        if weather.cut.load(Ordering::Relaxed) {
            break;
        }
        if weather.stuck[way].load(Ordering::Relaxed) {
            sleep(ms(5));
            continue;
        }
        let len = match from.read(&mut bytes) {
            Err(e) if pipe::is_timeout(&e) => continue,
            Ok(0) | Err(_) => break,
            Ok(len) => len,
        };
        let left = weather.flip.load(Ordering::Relaxed);
        if way == 0 && left > 0 {
            if left <= len {
                bytes[left - 1] ^= 16;
            }
            weather.flip.store(left.saturating_sub(len), Ordering::Relaxed);
        }
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A stranger's connection that has read the hello.
fn stranger(place: SocketAddr) -> (TcpStream, Vec<u8>) {
    let mut socket = TcpStream::connect(place).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut hello = vec![0; HELLO];
    socket.read_exact(&mut hello).unwrap();
    (socket, hello)
}

/// What else comes until the end; a reset is an end too.
fn rest(mut socket: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Err(e) if pipe::is_timeout(&e) => panic!("the connection is still open"),
        _ => bytes,
    }
}

/// Sends an offer and reads the answer.
fn knock(place: SocketAddr, secret: &[u8], offer: &Offer) -> Option<Answer> {
    let (mut socket, hello) = stranger(place);
    let (connector, sealed) = Connector::offer(&key(Some(secret), "dqrm"), [0; 32], &hello, offer).unwrap();
    socket.write_all(&sealed).unwrap();
    let answer = rest(socket);
    (!answer.is_empty()).then(|| connector.answer(&answer[LENGTH..]).unwrap().0)
}

fn offer(rank: u32, world: u32) -> Offer {
    Party::new(&settings(0, 2, 1)).map(|party| Offer { rank, world, ..party.offer(None, 1) }).unwrap()
}

/// Rank 0 of a job, waiting, and where.
fn waiting(world: usize, change: impl Fn(&mut TcpSettings)) -> (std::thread::JoinHandle<Result<Tcp>>, SocketAddr) {
    let (listener, address) = bind();
    let mut zero = settings(0, world, address.port());
    zero.listener = Some(listener);
    change(&mut zero);
    (spawn(move || connect(zero)), address)
}

#[test]
fn whoever_does_not_know_the_secret_learns_nothing() {
    let (zero, place) = waiting(2, |_| {});
    assert_eq!(knock(place, b"a guess", &offer(1, 2)), None, "nothing but the nonce, with a good offer");
    assert_eq!(knock(place, b"a guess", &offer(9, 7)), None, "nothing but the nonce, with a bad one");
    // A good offer of one connection says nothing on another.
    let (recorded, hello) = stranger(place);
    let sealed = Connector::offer(&key(Some(SECRET), "dqrm"), [0; 32], &hello, &offer(1, 2)).unwrap().1;
    drop(recorded);
    let (mut replay, _) = stranger(place);
    replay.write_all(&sealed).unwrap();
    assert!(rest(replay).is_empty());
    // Rank 0 is not impressed.
    let one = connect(settings(1, 2, place.port())).unwrap();
    assert!(zero.join().unwrap().is_ok());
    drop(one);
}

#[test]
fn ranks_with_different_secrets_do_not_meet() {
    for secret in [None, Some(b"another secret".to_vec())] {
        let found = errors(job(2, |rank, settings| {
            settings.connect = ms(400);
            if rank == 1 {
                settings.secret = secret.clone().map(Into::into);
            }
        }));
        assert!(found[0].starts_with("rank 1 of 2 did not come within 0.4 s; connections from strangers: "), "{}", found[0]);
        assert!(found[0].contains("(the first: it does not know the secret of this job)"), "{}", found[0]);
        assert!(found[1].contains("is it the same job with the same secret?"), "{}", found[1]);
    }
}

#[test]
fn a_job_that_was_started_wrongly_ends_at_once_everywhere() {
    let began = Instant::now();
    let start = |world, change: &(dyn Fn(usize, &mut TcpSettings) + Sync)| errors(job(world, change));
    // Rank 1 is right and waits for the others; rank 2 is wrong.
    let found = start(3, &|rank, settings| {
        if rank == 2 {
            settings.facts[0].1 = "77aa".into();
        }
    });
    for (rank, error) in found.iter().enumerate() {
        assert!(error.contains("`model` differs: `3f2a` at rank 0, `77aa` at rank 2"), "rank {rank}: {error}");
    }
    let found = start(2, &|rank, settings| {
        if rank == 1 {
            settings.facts.push(("codec".into(), "x\u{1b}[2J".into()));
        }
    });
    assert!(found.iter().all(|error| error.contains("`codec` differs: `(nothing)` at rank 0, `x [2J` at rank 1")), "{found:?}");
    let found = start(2, &|rank, settings| settings.world += rank);
    assert!(found.iter().all(|error| error.contains("`world size` differs: `2` at rank 0, `3` at rank 1")), "{found:?}");
    let found = start(3, &|rank, settings| settings.rank = rank.min(1));
    assert!(found.iter().any(|error| error.contains("rank 1 was started twice")), "{found:?}");
    assert!(found[0].contains("rank 1 was started twice"), "{found:?}");
    assert!(began.elapsed() < LONG, "nobody waited for the time to connect");
}

#[test]
fn a_rank_that_cannot_be_is_refused() {
    let (zero, place) = waiting(2, |_| {});
    let answer = knock(place, SECRET, &offer(2, 2));
    let reason = "rank 2 cannot be: there are 2 workers, the last is rank 1";
    assert_eq!(answer, Some(Answer::Refused { again: false, reason: reason.into() }));
    assert!(zero.join().unwrap().unwrap_err().to_string().contains(reason));
    let error = connect(settings(2, 2, 1)).unwrap_err().to_string();
    assert!(error.contains("rank 2 of 2 workers"), "{error}");
}

#[test]
fn workers_of_another_job_or_attempt_do_no_harm() {
    let (zero, place) = waiting(2, |_| {});
    // A survivor of an earlier attempt is told to go.
    let mut stale = settings(1, 2, place.port());
    stale.attempt = 0;
    let error = connect(stale).unwrap_err().to_string();
    assert!(error.contains("`attempt` differs: `1` at rank 0, `0` at rank 1"), "{error}");
    // One of a later attempt, or of another job, waits for its own rank 0.
    for change in [|s: &mut TcpSettings| s.attempt = 2, |s: &mut TcpSettings| s.job = "other".into()] {
        let mut other = settings(1, 2, place.port());
        other.connect = ms(200);
        change(&mut other);
        let error = connect(other).unwrap_err().to_string();
        assert!(error.contains("within 0.2 s: `") && error.contains("differs: `"), "{error}");
    }
    let one = connect(settings(1, 2, place.port())).unwrap();
    assert_eq!(zero.join().unwrap().unwrap().world(), 2);
    drop(one);
}

#[test]
fn a_rank_finds_its_job_among_others_and_comes_before_rank_0() {
    let (other, place) = waiting(2, |settings| (settings.job, settings.connect) = ("other".into(), ms(1500)));
    let (listener, mine) = bind();
    // Nobody listens there until rank 0 comes.
    drop(listener);
    let mut early = settings(1, 2, place.port());
    early.rendezvous.1.push(mine.port());
    let one = spawn(move || connect(early));
    sleep(ms(150));
    let mut zero = settings(0, 2, place.port());
    zero.rendezvous.1.push(mine.port());
    assert_eq!(connect(zero).unwrap().rank(), 0, "at the second port, since the first is taken");
    assert_eq!(one.join().unwrap().unwrap().rank(), 1);
    let error = other.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("; connections from other jobs or attempts: "), "{error}");
    assert!(error.contains("(the first: `job` differs: `other` at rank 0, `dqrm` at rank 1)"), "{error}");
    // No port is left.
    let (_taken, place) = bind();
    let error = connect(settings(0, 2, place.port())).unwrap_err().to_string();
    assert!(error.contains("give another port"), "{error}");
}

#[test]
fn missing_ranks_are_named() {
    let (zero, place) = waiting(5, |settings| settings.connect = ms(500));
    let ranks: Vec<_> = [1, 4].map(|rank| spawn(move || connect(settings(rank, 5, place.port())))).into();
    let error = zero.join().unwrap().unwrap_err().to_string();
    assert!(error.starts_with("ranks 2 and 3 of 5 did not come within 0.5 s"), "{error}");
    for rank in ranks {
        let error = rank.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("rank 0 ended: ranks 2 and 3 of 5 did not come"), "{error}");
    }
}

#[test]
fn strangers_at_the_door_do_no_harm() {
    for security in [Security::Plain, Security::Tls] {
        let (zero, place) = waiting(3, |settings| settings.security = security);
        let idle: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(place).unwrap()).collect();
        drop(TcpStream::connect(place).unwrap());
        for words in
            [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &[0xff; 20_000], &[0; 100], b"dqrmjoin\x01", b"\x16\x03\x01\x40\x00"]
        {
            let mut socket = TcpStream::connect(place).unwrap();
            // It may be shut while they speak.
            let _ = socket.write_all(words);
            spawn(move || rest(socket));
        }
        let ranks: Vec<_> = [1, 2]
            .map(|rank| {
                let mut settings = settings(rank, 3, place.port());
                settings.security = security;
                spawn(move || connect(settings).unwrap())
            })
            .into();
        let mut zero = zero.join().unwrap().unwrap();
        let mut ranks: Vec<Tcp> = ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
        ranks[1].send(0, &frame(2, Kind::Barrier, vec![])).unwrap();
        assert_eq!(zero.receive(LONG).unwrap().unwrap().0, 2);
        drop(idle);
        assert!(TcpStream::connect(place).is_err(), "the listener is closed when all have come");
    }
}

#[test]
fn a_slow_handshake_has_an_end() {
    let (zero, place) = waiting(2, |settings| settings.handshake = ms(300));
    let (mut socket, hello) = stranger(place);
    let sealed = Connector::offer(&key(Some(SECRET), "dqrm"), [0; 32], &hello, &offer(1, 2)).unwrap().1;
    let began = Instant::now();
    let sent = sealed.iter().take_while(|&&byte| {
        sleep(ms(20));
        socket.write_all(&[byte]).is_ok()
    });
    assert!(sent.count() < sealed.len(), "shut before the whole offer was there");
    assert!(began.elapsed() < LONG);
    let one = connect(settings(1, 2, place.port())).unwrap();
    assert!(zero.join().unwrap().is_ok());
    drop(one);
}

#[test]
fn a_connection_that_is_cut_is_noticed_by_both() {
    let (listener, place) = bind();
    let (place, weather) = proxy(place);
    let [mut zero, mut one] = pair_through(listener, place, |_| {});
    weather.cut.store(true, Ordering::Relaxed);
    for (end, rank) in [(&mut zero, 1), (&mut one, 0)] {
        let lost = lost(end);
        assert!(lost.rank == rank && lost.reason.contains("closed the connection"), "{lost:?}");
    }
}

#[test]
fn a_peer_that_dies_in_the_middle_of_a_frame_is_noticed() {
    let (listener, place) = bind();
    let (place, weather) = proxy(place);
    let [mut zero, mut one] = pair_through(listener, place, |_| {});
    let long = frame(1, Kind::Rows, vec![1; 1000]);
    one.send(0, &long[..500].into()).unwrap();
    one.flush(LONG);
    sleep(ms(100));
    weather.cut.store(true, Ordering::Relaxed);
    assert_eq!(lost(&mut zero).reason, "closed the connection in the middle of a frame");
}

fn impatient(settings: &mut TcpSettings) {
    (settings.silence, settings.heartbeat) = (ms(300), ms(50));
}

#[test]
fn silence_is_noticed_and_ends_nothing_before_its_time() {
    for security in [Security::Plain, Security::Tls] {
        let (listener, place) = bind();
        let (place, weather) = proxy(place);
        let [mut zero, mut one] = pair_through(listener, place, |settings| {
            impatient(settings);
            settings.security = security;
        });
        assert_eq!(zero.receive(ms(700)), Ok(None), "heartbeats are enough");
        weather.stuck.iter().for_each(|way| way.store(true, Ordering::Relaxed));
        for end in [&mut zero, &mut one] {
            assert_eq!(lost(end).reason, "said nothing for 0.3 s");
        }
        let began = Instant::now();
        drop((zero, one));
        assert!(began.elapsed() < LONG, "nothing hangs");
    }
}

#[test]
fn a_peer_that_takes_nothing_is_noticed_though_it_is_alive() {
    let (listener, place) = bind();
    let (place, weather) = proxy(place);
    let [mut zero, one] = pair_through(listener, place, |settings| match settings.rank {
        0 => impatient(settings),
        _ => settings.heartbeat = ms(50),
    });
    weather.stuck[1].store(true, Ordering::Relaxed);
    let large = frame(0, Kind::Rows, vec![0; 8 << 20]);
    (0..8).for_each(|_| zero.send(1, &large).unwrap());
    assert_eq!(lost(&mut zero).reason, "took nothing for 0.3 s");
    drop((zero, one));
}

#[test]
fn a_flipped_bit_is_noticed() {
    for (security, expected) in [(Security::Plain, "damaged frame of Rows"), (Security::Tls, "TLS: cannot decrypt peer's message")] {
        let (listener, place) = bind();
        let (place, weather) = proxy(place);
        let [mut zero, mut one] = pair_through(listener, place, |settings| settings.security = security);
        one.send(0, &frame(1, Kind::Barrier, vec![])).unwrap();
        assert!(zero.receive(LONG).unwrap().is_some());
        weather.flip.store(1500, Ordering::Relaxed);
        one.send(0, &frame(1, Kind::Rows, vec![1; 3000])).unwrap();
        let lost = lost(&mut zero);
        assert!(lost.rank == 1 && lost.reason.contains(expected), "{lost:?}");
    }
}

#[test]
fn nobody_gets_in_between() {
    // Somebody who takes rank 1's connection for rank 0 and passes everything on, with TLS on both sides.
    let (zero, real) = waiting(2, |settings| (settings.security, settings.connect) = (Security::Tls, ms(1500)));
    let (listener, false_place) = bind();
    let between = spawn(move || {
        let configs = Configs::new().unwrap();
        let deadline = Instant::now() + LONG;
        let (victim, _) = listener.accept().unwrap();
        let mut victim = Pipe::new(victim, Some(&configs), End::Acceptor, deadline).unwrap();
        let mut zero = Pipe::new(TcpStream::connect(real).unwrap(), Some(&configs), End::Connector, deadline).unwrap();
        victim.send(&zero.take(HELLO).unwrap()).unwrap();
        let offer = victim.take_sealed(LONGEST).unwrap();
        let length = (offer.len() - super::handshake::PROOF) as u32;
        zero.send(&length.to_le_bytes()).unwrap();
        zero.send(&offer).unwrap();
        zero.take(1).is_err()
    });
    let mut one = settings(1, 2, false_place.port());
    (one.security, one.connect) = (Security::Tls, ms(600));
    assert!(connect(one).is_err());
    assert!(between.join().unwrap(), "rank 0 did not answer");
    assert!(zero.join().unwrap().is_err());
}

#[test]
fn one_side_with_tls_and_one_without_say_so() {
    let found = errors(job(2, |rank, settings| {
        (settings.handshake, settings.connect) = (ms(200), ms(700));
        settings.security = [Security::Plain, Security::Tls][rank];
    }));
    assert!(found[1].contains("does not speak TLS as this worker does, or broke off"), "{}", found[1]);
    let found = errors(job(2, |rank, settings| {
        (settings.handshake, settings.connect) = (ms(200), ms(700));
        settings.security = [Security::Tls, Security::Plain][rank];
    }));
    assert!(found[1].contains("said nothing: it is no dqrm worker, or it uses TLS"), "{}", found[1]);
}

#[test]
fn other_hosts_need_tls_and_tls_needs_a_secret() {
    assert_eq!(default_security("127.0.0.1"), Security::Plain);
    assert_eq!(default_security("::1"), Security::Plain);
    assert_eq!(default_security("192.0.2.1"), Security::Tls);
    assert_eq!(default_security("no-such-host.invalid"), Security::Tls);
    let mut settings = settings(0, 2, 1);
    (settings.security, settings.secret) = (Security::Tls, None);
    let error = connect(settings).unwrap_err().to_string();
    assert!(error.contains("need a secret") && error.contains("--insecure-network"), "{error}");
}
