//! What makes people click: effects in logits, each with its reason. A model that ranks well has found these.

use super::catalogue::{FORMATS, PRICES, RELATED, TOPICS};
use super::{ADS, Ad, Showing, VARIANTS, VISITORS};
use dqrm::rng::Stream;

/// Numbers of devices, formats and ages that the rules speak of.
const PHONE: usize = 0;
const TELEVISION: usize = 4;
const TEXT: usize = 0;
const VIDEO: usize = 2;
const CAROUSEL: usize = 3;

/// The logit of an ad that nobody has a reason to click.
const BASE: f64 = -3.0;
const INTERESTED: f64 = 1.5;
const RELATED_INTEREST: f64 = 0.5;
const FITS_SITE: f64 = 0.7;
const RELATED_SITE: f64 = 0.25;
/// Interest and the right moment together are more than their sum.
const INTERESTED_AND_FITS: f64 = 0.6;
/// By position: top, in text, side, bottom.
const POSITION: [f64; 4] = [0.35, 0.15, -0.1, -0.45];
/// Each e-fold of ads seen today; videos tire more.
const FATIGUE: f64 = -0.45;
const VIDEO_FATIGUE: f64 = -0.15;

/// Topics that an age group likes more, or less.
const AGE_TASTES: [(usize, &str, f64); 20] = [
    (0, "gaming", 0.7),
    (0, "music", 0.5),
    (0, "finance", -0.5),
    (0, "home", -0.6),
    (0, "family", -0.8),
    (1, "technology", 0.3),
    (1, "travel", 0.3),
    (1, "family", 0.3),
    (2, "family", 0.7),
    (2, "home", 0.4),
    (3, "cars", 0.3),
    (3, "finance", 0.4),
    (3, "gaming", -0.4),
    (4, "travel", 0.4),
    (4, "health", 0.4),
    (4, "gaming", -0.7),
    (5, "health", 0.8),
    (5, "books", 0.5),
    (5, "gaming", -1.0),
    (5, "technology", -0.4),
];

/// What a country is fond of.
const REGION_TASTES: [(usize, &str, f64); 12] = [
    (0, "sports", 0.5),
    (1, "home", 0.4),
    (2, "food", 0.5),
    (3, "cars", 0.5),
    (4, "technology", 0.5),
    (5, "fashion", 0.5),
    (6, "gaming", 0.5),
    (7, "music", 0.4),
    (8, "films", 0.4),
    (9, "travel", 0.4),
    (10, "books", 0.5),
    (11, "health", 0.4),
];

/// Hours (first, end) in which a topic is on people's minds.
const HOUR_TASTES: [(usize, usize, &str, f64); 7] = [
    (11, 13, "food", 0.7),
    (17, 20, "food", 0.5),
    (19, 24, "gaming", 0.5),
    (20, 24, "films", 0.5),
    (8, 11, "finance", 0.5),
    (6, 9, "health", 0.5),
    (21, 24, "books", 0.4),
];

/// Topics of the weekend.
const WEEKEND: [&str; 5] = ["home", "family", "travel", "cars", "films"];

fn topic(name: &str) -> usize {
    TOPICS.iter().position(|&t| t == name).unwrap_or(TOPICS.len())
}

/// The tastes behind the clicks, looked up by number.
#[derive(Debug)]
pub(super) struct World {
    /// One stream for each visitor.
    pub(super) people: Stream,
    related: [[bool; TOPICS.len()]; TOPICS.len()],
    by_age: [[f64; TOPICS.len()]; 6],
    by_region: [[f64; TOPICS.len()]; 12],
    by_hour: [[f64; TOPICS.len()]; 24],
    weekend: [f64; TOPICS.len()],
    /// How well each product, each brand and each ad is made.
    products: Vec<f64>,
    brands: Vec<f64>,
    ads: Vec<f64>,
    /// How readily each visitor clicks; those without a number are like the mean.
    visitors: Vec<f64>,
}

impl World {
    /// The one world of all seeds.
    pub(super) fn new() -> World {
        let root = Stream::new(0, 0x0057_4f52_4c44);
        let normals = |number: u64, deviation: f64, len: usize| -> Vec<f64> {
            (0..len as u64).map(|i| deviation * root.sub(number).normal(i)).collect()
        };
        let mut world = World {
            people: root.sub(0),
            related: [[false; TOPICS.len()]; TOPICS.len()],
            by_age: [[0.0; TOPICS.len()]; 6],
            by_region: [[0.0; TOPICS.len()]; 12],
            by_hour: [[0.0; TOPICS.len()]; 24],
            weekend: std::array::from_fn(|t| if WEEKEND.contains(&TOPICS[t]) { 0.3 } else { 0.0 }),
            products: normals(1, 0.35, ADS / VARIANTS),
            brands: normals(2, 0.25, 2 * TOPICS.len()),
            ads: normals(3, 0.15, ADS),
            visitors: normals(4, 0.6, VISITORS + 1),
        };
        world.visitors[0] = 0.0;
        for (a, b) in RELATED {
            let (a, b) = (topic(a), topic(b));
            (world.related[a][b], world.related[b][a]) = (true, true);
        }
        AGE_TASTES.iter().for_each(|&(age, name, logit)| world.by_age[age][topic(name)] = logit);
        REGION_TASTES.iter().for_each(|&(region, name, logit)| world.by_region[region][topic(name)] = logit);
        for (first, end, name, logit) in HOUR_TASTES {
            (first..end).for_each(|hour| world.by_hour[hour][topic(name)] = logit);
        }
        world
    }

    /// The logit of a click.
    pub(super) fn logit(&self, s: &Showing) -> f64 {
        let ad = Ad::of(s.ad);
        let quality = self.products[s.ad / VARIANTS] + self.brands[ad.brand] + self.ads[s.ad];
        BASE + quality + self.visitors[s.visitor] + self.topics(s, &ad) + screen(s, &ad) + price(s, &ad) + attention(s, &ad)
    }

    /// The ad's topic against the visitor, the site and the time.
    fn topics(&self, s: &Showing, ad: &Ad) -> f64 {
        let interested = s.interests.contains(&ad.topic);
        let mut logit = match interested {
            true => INTERESTED,
            false if s.interests.iter().any(|&i| self.related[i][ad.topic]) => RELATED_INTEREST,
            false => 0.0,
        };
        // general sites stand after the topics
        if s.site == ad.topic {
            logit += FITS_SITE + if interested { INTERESTED_AND_FITS } else { 0.0 };
        } else if s.site < TOPICS.len() && self.related[s.site][ad.topic] {
            logit += RELATED_SITE;
        }
        let week = match s.weekday >= 5 {
            true => self.weekend[ad.topic],
            false if TOPICS[ad.topic] == "finance" => 0.3,
            false => 0.0,
        };
        logit + week + self.by_age[s.age][ad.topic] + self.by_region[s.region][ad.topic] + self.by_hour[s.hour][ad.topic]
    }
}

/// The device against the ad's format and the hour.
fn screen(s: &Showing, ad: &Ad) -> f64 {
    let format = match (s.device, ad.format) {
        (PHONE, CAROUSEL) => 0.4,
        (PHONE, VIDEO) => 0.3,
        (PHONE, TEXT) => -0.3,
        (TELEVISION, VIDEO) => 0.8,
        (TELEVISION, TEXT) => -0.9,
        (2 | 3, TEXT) => 0.2,
        _ => 0.0,
    };
    let office = s.weekday < 5 && (9..17).contains(&s.hour);
    let hour = match s.device {
        PHONE if s.hour >= 22 || s.hour < 2 => 0.5,
        PHONE if office => -0.3,
        2 | 3 if office => 0.2,
        TELEVISION if (19..22).contains(&s.hour) => 0.4,
        _ => 0.0,
    };
    format + hour
}

/// What it costs.
fn price(s: &Showing, ad: &Ad) -> f64 {
    let young = s.age < 2;
    let dear = ad.price.saturating_sub(2) as f64;
    let reluctance = if s.age == 0 { -0.5 * dear } else { -0.15 * dear };
    let bargain = f64::from(ad.discount) * if young { 0.022 } else { 0.014 };
    reluctance + bargain
}

/// Whether the visitor still looks at ads.
fn attention(s: &Showing, ad: &Ad) -> f64 {
    let fatigue = FATIGUE + if ad.format == VIDEO { VIDEO_FATIGUE } else { 0.0 };
    let log = |n: u32| f64::from(n).ln_1p();
    POSITION[s.position] + fatigue * log(s.ads_seen) + 0.18 * log(s.minutes) + 0.1 * log(s.pages)
}

const _: () = assert!(FORMATS.len() == 4 && PRICES.len() == 5, "the rules speak of these by number");
