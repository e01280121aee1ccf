//! The clicks on ads: each a function of (seed, number), with the effects that are claimed, the same as text and as rows.

use dqrm::data::ids::Mapper;
use dqrm::data::pushed::{Labels, PushedRows, RawBlock};
use dqrm::data::{Block, Samples};
use dqrm_web::ads::{self, Ad, Clicks, Showing, TOPICS};

fn fetched(clicks: &Clicks, indices: &[u64]) -> Block {
    let mut block = Block::new();
    clicks.fetch(indices, &mut block).unwrap();
    block
}

#[test]
fn a_sample_depends_on_its_seed_and_its_number_alone() {
    let clicks = Clicks::new(3, 0..1000);
    assert_eq!(fetched(&clicks, &[7, 900, 7]), fetched(&Clicks::new(3, 0..950), &[7, 900, 7]));
    assert_eq!(clicks.line(907), Clicks::new(3, 900..910).line(7));
    let differ = (0..100).filter(|&i| clicks.line(i) != Clicks::new(4, 0..100).line(i)).count();
    assert!(differ > 95, "{differ}");
}

/// Files made earlier must stay what they are.
#[test]
fn clicks_stay_what_they_were() {
    let clicks = Clicks::new(1, 0..u64::MAX);
    assert_eq!(clicks.line(0), FIRST);
    assert_eq!(clicks.line(1 << 40), LATE);
}

const FIRST: &str =
    "1\t4\t6\t4\t0\tlaptop\t15\tMonday\tIndia\t18-24\tv0001\ttravel\tside\ttravel\tLantern Tours\tvideo\tover 1000\ta0186\ttravel,beauty";
const LATE: &str =
    "0\t3\t5\t5\t0\tphone\t20\tThursday\tNigeria\t45-54\tanonymous\tnews\tside\tcars\tMotora\ttext\t100 to 1000\ta0400\ttravel,technology";

#[test]
fn text_and_rows_are_the_same_samples() {
    let clicks = Clicks::new(5, 100..600);
    let mut rows = PushedRows::new("clicks", &ads::schema(), Labels::Required, Default::default(), None).unwrap();
    let mut raw = RawBlock::new();
    let text: String = [ads::header()].into_iter().chain((0..500).map(|i| clicks.line(i))).map(|line| line + "\n").collect();
    rows.push(text.as_bytes(), &mut raw).unwrap();
    rows.finish(&mut raw).unwrap();
    let mut found = Block::new();
    let mapper = Mapper::of_words(&ads::vocabulary()).unwrap();
    mapper.map(&raw, &mut found).unwrap();
    assert_eq!(mapper.rows(), clicks.rows());
    assert_eq!(found, fetched(&clicks, &(0..500).collect::<Vec<_>>()));
}

/// Clicks among showings that `which` picks, and their number.
fn rate(which: impl Fn(&Showing, &Ad) -> bool) -> (f64, usize) {
    let clicks = Clicks::new(11, 0..60_000);
    let block = fetched(&clicks, &(0..60_000).collect::<Vec<_>>());
    let picked: Vec<f32> = (0..60_000u64)
        .filter(|&i| {
            let showing = clicks.showing(i);
            which(&showing, &Ad::of(showing.ad))
        })
        .map(|i| block.labels[i as usize])
        .collect();
    (f64::from(picked.iter().sum::<f32>()) / picked.len() as f64, picked.len())
}

fn more(a: impl Fn(&Showing, &Ad) -> bool, b: impl Fn(&Showing, &Ad) -> bool, times: f64) {
    let ((a, many), (b, few)) = (rate(a), rate(b));
    assert!(many > 300 && few > 300 && a > times * b, "{a} of {many} against {b} of {few}");
}

#[test]
fn about_every_fifth_ad_is_clicked() {
    let (all, _) = rate(|_, _| true);
    assert!((0.19..0.23).contains(&all), "{all}");
}

#[test]
fn people_click_what_they_care_about() {
    more(|s, ad| s.interests.contains(&ad.topic), |s, ad| !s.interests.contains(&ad.topic), 2.0);
    // interest and site together
    more(|s, ad| s.interests.contains(&ad.topic) && s.site == ad.topic, |s, ad| s.interests.contains(&ad.topic) && s.site != ad.topic, 1.3);
}

#[test]
fn tired_people_and_the_wrong_place_and_time_cost_clicks() {
    more(|s, _| s.ads_seen < 2, |s, _| s.ads_seen > 15, 1.6);
    more(|s, _| s.position == 0, |s, _| s.position == 3, 1.3);
    let (phone, late) = (|s: &Showing| s.device == 0, |s: &Showing| s.hour >= 22 || s.hour < 2);
    more(|s, _| phone(s) && late(s), |s, _| phone(s) && s.weekday < 5 && (9..17).contains(&s.hour), 1.4);
    let gaming = TOPICS.iter().position(|&t| t == "gaming").unwrap();
    more(|s, ad| s.age == 0 && ad.topic == gaming, |s, ad| s.age >= 4 && ad.topic == gaming, 1.8);
}

#[test]
fn the_shop_window_shows_128_different_things() {
    let text = ads::description();
    let ads = text["ads"].as_array().unwrap();
    let titles: std::collections::BTreeSet<&str> = ads.iter().map(|ad| ad["title"].as_str().unwrap()).collect();
    assert_eq!((ads.len(), titles.len()), (128, 128));
    let names: Vec<&str> = text["columns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(format!("click\t{}", names.join("\t")), ads::header());
    // every column is the visitor's or the ad's, once
    for name in names {
        let of = [&text["visitor"], &ads[0]["values"]].map(|values| values.get(name).is_some());
        assert_ne!(of[0], of[1], "{name}");
    }
}
