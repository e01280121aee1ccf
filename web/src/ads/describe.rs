//! What a page has to know of the columns, the visitor and the ads.

use super::{ADS, Ad, CATEGORICAL, DENSE, INTERESTS, LABEL, Showing, TOPICS, VARIANTS, vocabulary, word};
use serde_json::{Value, json};

/// Label, kind and what a control offers, for the numbers: smallest, largest.
const NUMBERS: [(&str, &str, u32, u32); DENSE.len()] = [
    ("Minutes on the site", "context", 0, 60),
    ("Ads seen today", "context", 0, 40),
    ("Pages visited", "context", 1, 40),
    ("Discount in percent", "ad", 0, 50),
];

/// Label and kind of the words.
const WORDS: [(&str, &str); CATEGORICAL.len()] = [
    ("Device", "visitor"),
    ("Hour", "context"),
    ("Weekday", "context"),
    ("Region", "visitor"),
    ("Age", "visitor"),
    ("Visitor number", "visitor"),
    ("Site", "context"),
    ("Place on the page", "context"),
    ("Topic", "ad"),
    ("Brand", "ad"),
    ("Format", "ad"),
    ("Price", "ad"),
    ("Ad number", "ad"),
];

/// A control offers at most so many words; columns with more are numbers of visitors and ads.
const OFFERED: usize = 64;

/// The columns in the order of a row, the ads of the shop window and the visitor that a page begins with.
pub fn description() -> Value {
    let numbers = DENSE.iter().zip(NUMBERS).map(
        |(name, (label, kind, min, max))| json!({ "name": name, "label": label, "kind": kind, "type": "number", "min": min, "max": max }),
    );
    let vocabulary = vocabulary();
    let words = CATEGORICAL.iter().zip(WORDS).zip(&vocabulary).map(|((name, (label, kind)), values)| match values.len() <= OFFERED {
        true => json!({ "name": name, "label": label, "kind": kind, "type": "category", "values": values }),
        false => json!({ "name": name, "label": label, "kind": kind, "type": "id", "count": values.len() }),
    });
    let interests = json!({ "name": INTERESTS, "label": "Interests", "kind": "visitor", "type": "set", "values": TOPICS });
    let columns: Vec<Value> = numbers.chain(words).chain([interests]).collect();
    json!({
        "label": LABEL,
        "columns": columns,
        "ads": window().into_iter().map(described).collect::<Vec<_>>(),
        "visitor": values(&first_visitor(), &columns, |kind| kind != "ad"),
    })
}

/// One ad of each product: the formats take turns, every third has a discount.
fn window() -> Vec<usize> {
    (0..ADS / VARIANTS).map(|product| product * VARIANTS + (product + product / 8) % 4 + if product % 3 == 0 { 4 } else { 0 }).collect()
}

fn described(number: usize) -> Value {
    let ad = Ad::of(number);
    // in the order of the columns
    let [topic, brand, format, price, name] =
        [8, 9, 10, 11, 12].map(|column| word(column, Showing { ad: number, ..first_visitor() }.categories()[column]));
    json!({
        "title": ad.title(),
        "values": { "discount": ad.discount, "topic": topic, "brand": brand, "format": format, "price": price, "ad": name },
    })
}

/// Saturday evening, a phone, a gamer who likes films.
fn first_visitor() -> Showing {
    Showing {
        device: 0,
        hour: 20,
        weekday: 5,
        region: 9,
        age: 1,
        visitor: 0,
        site: 0,
        position: 1,
        ad: 0,
        interests: vec![0, 15],
        minutes: 6,
        ads_seen: 4,
        pages: 5,
    }
}

/// Name and value of the columns whose kind is wanted.
fn values(showing: &Showing, columns: &[Value], wanted: impl Fn(&str) -> bool) -> Value {
    let numbers = showing.numbers().into_iter().map(|n| json!(n));
    let words = showing.categories().into_iter().enumerate().map(|(column, place)| json!(word(column, place)));
    let interests = json!(showing.interests.iter().map(|&topic| TOPICS[topic]).collect::<Vec<_>>());
    let all = columns.iter().zip(numbers.chain(words).chain([interests]));
    let text = |column: &Value, key: &str| column[key].as_str().unwrap_or_default().to_owned();
    all.filter(|(column, _)| wanted(&text(column, "kind")))
        .map(|(column, value)| (text(column, "name"), value))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
