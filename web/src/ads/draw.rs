//! Who visits which site and is shown which ad.

use super::catalogue::{AGES, DEVICES, GENERAL_SITES, POSITIONS, REGIONS, TOPICS, WEEKDAYS};
use super::truth::World;
use super::{ADS, Showing, VISITORS};
use dqrm::rng::Stream;

/// The draw that decides about the click.
pub(super) const LABEL: u64 = 0;

/// Share of visits by people without a number.
const ANONYMOUS: f64 = 0.1;

/// How many people are online in each hour.
const HOURS: [u32; 24] = [5, 3, 2, 1, 1, 2, 4, 7, 9, 9, 9, 10, 12, 11, 9, 9, 10, 11, 12, 14, 16, 16, 13, 9];

/// Devices in use, for the young, the middle and the old; a television only in the evening.
const DEVICE_WEIGHTS: [[u32; DEVICES.len()]; 3] = [[62, 6, 18, 10, 4], [45, 12, 20, 17, 6], [28, 24, 14, 24, 10]];

const POSITION_WEIGHTS: [u32; POSITIONS.len()] = [20, 35, 30, 15];

/// A place by its weight; `u` is uniform in [0, 1).
fn weighted(weights: &[u32], u: f64) -> usize {
    let mut left = u * f64::from(weights.iter().sum::<u32>());
    weights
        .iter()
        .position(|&w| {
            left -= f64::from(w);
            left < 0.0
        })
        .unwrap_or(weights.len() - 1)
}

/// A visitor's lasting traits.
struct Person {
    region: usize,
    age: usize,
    interests: [usize; 3],
}

impl Person {
    /// `stream` belongs to the person, or to the visit of somebody without a number.
    fn of(stream: &Stream) -> Person {
        let topic = |i: u64| stream.below(10 + i, TOPICS.len() as u64) as usize;
        let region = stream.below(1, REGIONS.len() as u64) as usize;
        Person {
            region,
            age: weighted(&[18, 24, 20, 16, 12, 10], stream.uniform(2)).min(AGES.len() - 1),
            interests: [topic(0), topic(1), topic(2)],
        }
    }
}

/// What happens in the visit that `s` belongs to.
pub(super) fn showing(s: &Stream, world: &World) -> Showing {
    let visitor = match s.uniform(1) < ANONYMOUS {
        true => 0,
        // some come often
        false => 1 + (s.uniform(2).powf(1.5) * VISITORS as f64) as usize % VISITORS,
    };
    let person = Person::of(&if visitor == 0 { s.sub(1) } else { world.people.sub(visitor as u64) });
    let hour = weighted(&HOURS, s.uniform(3));
    let mut device = weighted(&DEVICE_WEIGHTS[person.age / 2], s.uniform(4));
    if device == 4 && !(17..24).contains(&hour) {
        device = 0;
    }
    let interests = interests(s, &person);
    let pick = |draw: u64| interests[s.below(draw, interests.len().max(1) as u64) as usize];
    let any = |draw: u64| s.below(draw, TOPICS.len() as u64) as usize;
    let site = match s.uniform(6) {
        u if u < 0.5 && !interests.is_empty() => pick(7),
        u if u < 0.75 => TOPICS.len() + s.below(8, GENERAL_SITES.len() as u64) as usize,
        _ => any(9),
    };
    // some ads go with the site, some with the visitor, most with neither
    let topic = match s.uniform(10) {
        u if u < 0.2 && site < TOPICS.len() => site,
        u if u < 0.4 && !interests.is_empty() => pick(11),
        _ => any(12),
    };
    let of_topic = ADS / TOPICS.len();
    let minutes = (1.4 + 0.9 * s.normal(20)).exp().round().min(180.0) as u32;
    Showing {
        device,
        hour,
        weekday: s.below(13, WEEKDAYS.len() as u64) as usize,
        region: person.region,
        age: person.age,
        visitor,
        site,
        position: weighted(&POSITION_WEIGHTS, s.uniform(14)),
        ad: topic * of_topic + s.below(15, of_topic as u64) as usize,
        interests,
        minutes,
        ads_seen: ((1.5 + 0.9 * s.normal(21)).exp() - 1.0).round().clamp(0.0, 60.0) as u32,
        pages: 1 + (f64::from(minutes) * (0.2 + 1.3 * s.uniform(16))).min(80.0) as u32,
    }
}

/// What the visitor cares about today: most of the lasting interests, sometimes a new one.
fn interests(s: &Stream, person: &Person) -> Vec<usize> {
    let lasting = person.interests.iter().enumerate().filter(|(i, _)| s.uniform(30 + *i as u64) < 0.6).map(|(_, &topic)| topic);
    let new = (s.uniform(33) < 0.6).then(|| s.below(34, TOPICS.len() as u64) as usize);
    let mut interests: Vec<usize> = lasting.chain(new).collect();
    interests.sort_unstable();
    interests.dedup();
    interests
}
