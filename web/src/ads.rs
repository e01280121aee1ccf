//! Clicks on ads that a person can read: visitors with interests, sites, ads of made-up brands. Sample number i of a seed is a function
//! of (seed, i), so clicks can be made anywhere, in any order, and none is stored.
//!
//! A click is drawn from a probability that `truth` spells out: interests, the site, the time of day, tired eyes. What a model learns can
//! so be checked by a person, and by [`Clicks::probability`], which nobody can beat.
//!
//! The same samples come as text, with a header and words (`dqrm train` reads it on a workstation), and as row numbers at once (what a
//! page trains on). Row 0 of each table is for words never seen; word number w of a column has row w + 1, as in [`vocabulary`]'s order.

use dqrm::Result;
use dqrm::config::{Column, IdText, Schema};
use dqrm::data::{Block, Samples};
use dqrm::metrics::sigmoid;
use dqrm::rng::Stream;
use std::ops::Range;

mod catalogue;
mod describe;
mod draw;
mod truth;

pub use catalogue::TOPICS;
pub use describe::description;

use catalogue::{AGES, BRANDS, DEVICES, FORMATS, GENERAL_SITES, POSITIONS, PRICES, PRODUCTS, REGIONS, WEEKDAYS};
use truth::World;

/// The label's column: 1 for a click.
pub const LABEL: &str = "click";
/// Columns of whole numbers.
pub const DENSE: [&str; 4] = ["minutes", "ads_seen", "pages", "discount"];
/// Columns of one word.
pub const CATEGORICAL: [&str; 13] =
    ["device", "hour", "weekday", "region", "age", "visitor", "site", "position", "topic", "brand", "format", "price", "ad"];
/// The column of several words.
pub const INTERESTS: &str = "interests";
/// Visitors that are known by a number; number 0 stands for those without one.
pub const VISITORS: usize = 4000;
/// Each product is advertised in every format, with and without a discount.
const VARIANTS: usize = 2 * FORMATS.len();
/// Ads in all.
pub const ADS: usize = TOPICS.len() * PRODUCTS[0].len() * VARIANTS;

/// One showing of one ad to one visitor; categories by their place in the column's [`vocabulary`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Showing {
    /// What the visitor holds.
    pub device: usize,
    /// Of the day, 0 to 23.
    pub hour: usize,
    /// Monday is 0.
    pub weekday: usize,
    /// Where the visitor lives.
    pub region: usize,
    /// Band of years.
    pub age: usize,
    /// The visitor's number; 0 when there is none.
    pub visitor: usize,
    /// What the site is about.
    pub site: usize,
    /// Where on the page the ad stands.
    pub position: usize,
    /// The ad's number, below [`ADS`].
    pub ad: usize,
    /// What the visitor cares about, as places in [`TOPICS`], rising.
    pub interests: Vec<usize>,
    /// Minutes on the site.
    pub minutes: u32,
    /// Ads seen today.
    pub ads_seen: u32,
    /// Pages visited.
    pub pages: u32,
}

/// What is known of an ad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ad {
    /// Place in [`TOPICS`].
    pub topic: usize,
    /// The product's place among its topic's.
    product: usize,
    /// Place in the vocabulary of brands.
    pub brand: usize,
    /// Place in the vocabulary of formats.
    pub format: usize,
    /// Place in the vocabulary of prices.
    pub price: usize,
    /// In percent.
    pub discount: u32,
}

impl Ad {
    /// Ad number `number`, which must be below [`ADS`].
    pub fn of(number: usize) -> Ad {
        let (product, variant) = (number / VARIANTS, number % VARIANTS);
        let (topic, product) = (product / PRODUCTS[0].len(), product % PRODUCTS[0].len());
        let found = PRODUCTS[topic][product];
        // the second half of a product's ads promise 10 to 50 percent, where there is a price at all
        let discounted = variant >= FORMATS.len() && found.price > 0;
        let discount = if discounted { 10 + 10 * ((number / VARIANTS + variant) % 5) as u32 } else { 0 };
        Ad { topic, product, brand: 2 * topic + found.brand, format: variant % FORMATS.len(), price: found.price, discount }
    }

    /// What a person reads.
    pub fn title(&self) -> &'static str {
        PRODUCTS[self.topic][self.product].title
    }
}

impl Showing {
    /// Words of the categorical columns, by their places in the vocabularies, in the order of [`CATEGORICAL`].
    pub fn categories(&self) -> [usize; CATEGORICAL.len()] {
        let ad = Ad::of(self.ad);
        let visitor = [self.device, self.hour, self.weekday, self.region, self.age, self.visitor];
        let rest = [self.site, self.position, ad.topic, ad.brand, ad.format, ad.price, self.ad];
        std::array::from_fn(|k| if k < visitor.len() { visitor[k] } else { rest[k - visitor.len()] })
    }

    /// Numbers, in the order of [`DENSE`].
    pub fn numbers(&self) -> [u32; DENSE.len()] {
        [self.minutes, self.ads_seen, self.pages, Ad::of(self.ad).discount]
    }

    /// The features as a line of text without its end, in the order of [`header`] without the label.
    pub fn line(&self) -> String {
        let numbers = self.numbers().into_iter().map(|n| n.to_string());
        let words = self.categories().into_iter().enumerate().map(|(column, place)| word(column, place));
        let interests: Vec<&str> = self.interests.iter().map(|&topic| TOPICS[topic]).collect();
        numbers.chain(words).chain([interests.join(",")]).collect::<Vec<_>>().join("\t")
    }
}

/// The first line of a file: the label, then numbers, words and interests.
pub fn header() -> String {
    let features = DENSE.iter().chain(&CATEGORICAL).chain([&INTERESTS]);
    [&LABEL].into_iter().chain(features).copied().collect::<Vec<_>>().join("\t")
}

/// Word number `place` of a column, counted as in [`CATEGORICAL`].
fn word(column: usize, place: usize) -> String {
    match CATEGORICAL[column] {
        "device" => DEVICES[place].into(),
        "hour" => format!("{place:02}"),
        "weekday" => WEEKDAYS[place].into(),
        "region" => REGIONS[place].into(),
        "age" => AGES[place].into(),
        "visitor" if place == 0 => "anonymous".into(),
        "visitor" => format!("v{place:04}"),
        "site" => TOPICS.iter().chain(&GENERAL_SITES).nth(place).copied().unwrap_or_default().into(),
        "position" => POSITIONS[place].into(),
        "topic" => TOPICS[place].into(),
        "brand" => BRANDS[place / 2][place % 2].into(),
        "format" => FORMATS[place].into(),
        "price" => PRICES[place].into(),
        _ => format!("a{place:04}"),
    }
}

/// How many words each table has: the categorical columns, then the interests.
fn words() -> [usize; CATEGORICAL.len() + 1] {
    let sites = TOPICS.len() + GENERAL_SITES.len();
    let visitor = [DEVICES.len(), 24, WEEKDAYS.len(), REGIONS.len(), AGES.len(), VISITORS + 1];
    let ad = [sites, POSITIONS.len(), TOPICS.len(), 2 * BRANDS.len(), FORMATS.len(), PRICES.len(), ADS, TOPICS.len()];
    std::array::from_fn(|k| if k < visitor.len() { visitor[k] } else { ad[k - visitor.len()] })
}

/// The words of each table, in the order of their rows: the categorical columns, then the interests.
pub fn vocabulary() -> Vec<Vec<String>> {
    let columns = words().into_iter().enumerate();
    let of = |column, place| if column < CATEGORICAL.len() { word(column, place) } else { TOPICS[place].to_string() };
    columns.map(|(column, count)| (0..count).map(|place| of(column, place)).collect()).collect()
}

/// The columns of the text.
pub fn schema() -> Schema {
    let named = |names: &[&str]| names.iter().map(|&name| Column::Name(name.into())).collect();
    Schema {
        header: true,
        label: Column::Name(LABEL.into()),
        dense: named(&DENSE),
        categorical: named(&CATEGORICAL),
        multi_hot: named(&[INTERESTS]),
        multi_hot_max: TOPICS.len(),
        id_text: IdText::Text,
        ..Schema::default()
    }
}

/// Samples of one seed.
#[derive(Debug)]
pub struct Clicks {
    draws: Stream,
    range: Range<u64>,
    rows: Vec<u64>,
    max_bag: Vec<usize>,
    world: World,
}

impl Clicks {
    /// The samples numbered `range` of `seed`. Every seed has the same visitors, ads and tastes; what happens to them differs.
    pub fn new(seed: u64, range: Range<u64>) -> Clicks {
        let words = words();
        let mut max_bag = vec![1; words.len()];
        max_bag[CATEGORICAL.len()] = TOPICS.len();
        let rows = words.iter().map(|&n| n as u64 + 1).collect();
        Clicks { draws: Stream::new(seed, 0x0041_4453), range, rows, max_bag, world: World::new() }
    }

    /// Sample number `index` of the range.
    pub fn showing(&self, index: u64) -> Showing {
        draw::showing(&self.draws.sub(self.range.start + index), &self.world)
    }

    /// The logit of a click, as it truly is.
    pub fn logit(&self, showing: &Showing) -> f64 {
        self.world.logit(showing)
    }

    /// The probability of a click, as it truly is.
    pub fn probability(&self, showing: &Showing) -> f64 {
        sigmoid(self.logit(showing))
    }

    /// Whether sample `index`, which is `showing`, was clicked.
    fn clicked(&self, index: u64, showing: &Showing) -> bool {
        self.draws.sub(self.range.start + index).uniform(draw::LABEL) < self.probability(showing)
    }

    /// Sample `index` as a line of text without its end, label first.
    pub fn line(&self, index: u64) -> String {
        let showing = self.showing(index);
        format!("{}\t{}", u8::from(self.clicked(index, &showing)), showing.line())
    }
}

impl Samples for Clicks {
    fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    fn dense(&self) -> usize {
        DENSE.len()
    }

    fn rows(&self) -> &[u64] {
        &self.rows
    }

    fn max_bag(&self) -> &[usize] {
        &self.max_bag
    }

    fn fetch(&self, indices: &[u64], block: &mut Block) -> Result<()> {
        for &index in indices {
            let showing = self.showing(index);
            // as text is read: ln(x + 1) in FP32
            block.dense.extend(showing.numbers().map(|n| (n as f32 + 1.0).ln()));
            for place in showing.categories() {
                block.ids.push(place as u32 + 1);
                block.end_bag();
            }
            block.ids.extend(showing.interests.iter().map(|&topic| topic as u32 + 1));
            block.end_bag();
            block.labels.push(f32::from(u8::from(self.clicked(index, &showing))));
            block.samples += 1;
        }
        Ok(())
    }
}
