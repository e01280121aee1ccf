//! The shop window: what is advertised, by whom, and the words of every feature. All names are made up.

/// What sites, ads and interests are about.
pub const TOPICS: [&str; 16] = [
    "gaming",
    "sports",
    "travel",
    "food",
    "fashion",
    "beauty",
    "cars",
    "finance",
    "technology",
    "music",
    "books",
    "home",
    "health",
    "family",
    "pets",
    "films",
];

/// Pairs of topics whose readers are partly the same.
pub(super) const RELATED: [(&str, &str); 17] = [
    ("gaming", "technology"),
    ("gaming", "films"),
    ("sports", "health"),
    ("sports", "cars"),
    ("travel", "food"),
    ("travel", "books"),
    ("food", "home"),
    ("food", "health"),
    ("fashion", "beauty"),
    ("fashion", "music"),
    ("cars", "technology"),
    ("finance", "technology"),
    ("music", "films"),
    ("books", "films"),
    ("home", "family"),
    ("home", "finance"),
    ("family", "pets"),
];

/// Sites that are about everything; they stand after the topics.
pub(super) const GENERAL_SITES: [&str; 3] = ["news", "social", "weather"];

pub(super) const DEVICES: [&str; 5] = ["phone", "tablet", "laptop", "desktop", "television"];
pub(super) const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
pub(super) const REGIONS: [&str; 12] =
    ["Brazil", "Canada", "France", "Germany", "India", "Italy", "Japan", "Mexico", "Nigeria", "Spain", "United Kingdom", "United States"];
pub(super) const AGES: [&str; 6] = ["18-24", "25-34", "35-44", "45-54", "55-64", "65+"];
pub(super) const POSITIONS: [&str; 4] = ["top", "in text", "side", "bottom"];
pub(super) const FORMATS: [&str; 4] = ["text", "image", "video", "carousel"];
pub(super) const PRICES: [&str; 5] = ["free", "under 20", "20 to 100", "100 to 1000", "over 1000"];

/// Two advertisers for each topic.
pub(super) const BRANDS: [[&str; 2]; 16] = [
    ["Pixelforge", "Owlbyte"],
    ["Stride & Co", "Peak Nine"],
    ["Farway", "Lantern Tours"],
    ["Basil Street", "Quick Kettle"],
    ["Nordkleid", "Thread Lane"],
    ["Velouria", "Fern & Clay"],
    ["Motora", "Kestrel Cars"],
    ["Copperbank", "Tally"],
    ["Lumen Labs", "Axon Works"],
    ["Blue Room", "Tonearm"],
    ["Paper Fox", "Midnight Press"],
    ["Hearth", "Oakline"],
    ["Vita Daily", "Clearwell"],
    ["Little Otter", "Kitebox"],
    ["Pawsome", "Whisker & Tail"],
    ["Silverscreen", "Reelhouse"],
];

/// One thing that is advertised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub(super) title: &'static str,
    /// Which of its topic's two advertisers.
    pub(super) brand: usize,
    /// Place in [`PRICES`].
    pub(super) price: usize,
}

const fn product(title: &'static str, brand: usize, price: usize) -> Product {
    Product { title, brand, price }
}

/// Eight for each topic.
pub(super) const PRODUCTS: [[Product; 8]; 16] = [
    [
        product("Starfall Arena, play now", 0, 0),
        product("Dungeon Post, a puzzle quest", 0, 1),
        product("Turbo Kart League", 0, 2),
        product("Iron Harbour, the strategy epic", 0, 2),
        product("Silent headset for night players", 1, 2),
        product("Mechanical keyboard, quiet keys", 1, 3),
        product("Pocket console", 1, 3),
        product("Gaming PC, built to order", 1, 4),
    ],
    [
        product("Marathon plan in an app", 0, 0),
        product("Running socks, five pairs", 0, 1),
        product("Trail shoes with grip", 0, 3),
        product("Match tickets, this weekend", 0, 2),
        product("Yoga mat, cork", 1, 2),
        product("Climbing starter set", 1, 3),
        product("Road bike, carbon frame", 1, 4),
        product("Live football, one month free", 1, 0),
    ],
    [
        product("Night trains across the continent", 0, 3),
        product("City map, works offline", 0, 0),
        product("Cabin bag, 35 litres", 0, 3),
        product("A week by the sea", 0, 3),
        product("Guided walk in the old town", 1, 1),
        product("Northern lights, five days", 1, 4),
        product("Travel insurance by the day", 1, 1),
        product("Safari for two", 1, 4),
    ],
    [
        product("Lunch box to your desk", 0, 1),
        product("Olive oil from one grove", 0, 1),
        product("Recipes for thirty minutes", 0, 0),
        product("Chef's knife", 0, 3),
        product("Coffee beans, monthly", 1, 1),
        product("Dinner for two, delivered", 1, 2),
        product("Pasta maker", 1, 2),
        product("Wine tasting evening", 1, 2),
    ],
    [
        product("Linen shirt", 0, 2),
        product("Winter coat, recycled wool", 0, 3),
        product("White trainers", 0, 2),
        product("Style quiz, find your look", 0, 0),
        product("Silk scarf", 1, 2),
        product("Leather bag, made by hand", 1, 3),
        product("Jeans that last", 1, 2),
        product("Evening dress, rent it", 1, 2),
    ],
    [
        product("Day cream with sun protection", 0, 1),
        product("Perfume, forest after rain", 0, 2),
        product("Lipstick in twelve reds", 0, 1),
        product("Skin check in an app", 0, 0),
        product("Clay mask", 1, 1),
        product("Shampoo bar", 1, 1),
        product("Hair dryer, quiet", 1, 3),
        product("Spa day", 1, 3),
    ],
    [
        product("Electric city car", 0, 4),
        product("Test drive this Saturday", 0, 0),
        product("Winter tyres, fitted", 0, 3),
        product("Family estate car", 0, 4),
        product("Dash camera", 1, 2),
        product("Car wash, ten visits", 1, 2),
        product("Roadster weekend, rent it", 1, 3),
        product("What is your car worth?", 1, 0),
    ],
    [
        product("Account without fees", 0, 0),
        product("Savings at 3 percent", 0, 0),
        product("Mortgage in one meeting", 0, 4),
        product("First shares from 10", 0, 1),
        product("Tax return in an hour", 1, 2),
        product("Budget app for students", 1, 0),
        product("Pension check", 1, 0),
        product("Home insurance", 1, 3),
    ],
    [
        product("Phone with a week of battery", 0, 3),
        product("Earbuds that cancel noise", 0, 3),
        product("Laptop, one kilogram", 0, 4),
        product("Password manager", 0, 0),
        product("Soldering kit", 1, 2),
        product("Robot arm for the desk", 1, 3),
        product("Fast charger", 1, 1),
        product("Learn to code, first week free", 1, 0),
    ],
    [
        product("Streaming, three months free", 0, 0),
        product("Jazz club tonight", 0, 2),
        product("Festival pass", 0, 3),
        product("Piano lessons online", 0, 1),
        product("Vinyl of the month", 1, 2),
        product("Turntable", 1, 3),
        product("Guitar strings", 1, 1),
        product("Studio monitors", 1, 3),
    ],
    [
        product("A chapter a day, by mail", 0, 0),
        product("The lighthouse mystery", 0, 1),
        product("Audiobooks, first one free", 0, 0),
        product("E-reader, warm light", 0, 3),
        product("Poems for the train", 1, 1),
        product("Cookbook of the year", 1, 2),
        product("Atlas of islands", 1, 2),
        product("Writing course", 1, 2),
    ],
    [
        product("Sofa, delivered on Friday", 0, 4),
        product("Desk lamp", 0, 2),
        product("Houseplants that survive", 0, 1),
        product("Plan your kitchen", 0, 0),
        product("Bookshelf, solid oak", 1, 3),
        product("Linen bedding", 1, 2),
        product("Garden tools", 1, 2),
        product("Heat pump, ask for an offer", 1, 4),
    ],
    [
        product("Sleep better, a course", 0, 1),
        product("Vitamins, monthly", 0, 1),
        product("Blood pressure monitor", 0, 2),
        product("Steps and pulse on your wrist", 0, 3),
        product("Back pain exercises", 1, 0),
        product("Reading glasses online", 1, 2),
        product("Hearing test", 1, 0),
        product("Electric toothbrush", 1, 2),
    ],
    [
        product("Wooden blocks", 0, 2),
        product("Pushchair, folds in one hand", 0, 3),
        product("Bedtime stories in an app", 0, 0),
        product("Raincoats for small people", 0, 2),
        product("Craft box, monthly", 1, 1),
        product("Board game night", 1, 2),
        product("Zoo tickets", 1, 2),
        product("School bag", 1, 2),
    ],
    [
        product("Dry food, twelve kilograms", 0, 2),
        product("Puppy school", 0, 2),
        product("Vet by video", 0, 1),
        product("Dog coat", 0, 2),
        product("Scratching tree", 1, 2),
        product("Cat litter, delivered", 1, 1),
        product("Aquarium, 60 litres", 1, 3),
        product("Name your kitten, a quiz", 1, 0),
    ],
    [
        product("Cinema tonight, two for one", 0, 1),
        product("Film classics, one month free", 0, 0),
        product("Projector for the wall", 0, 3),
        product("Open air screening", 0, 1),
        product("The heist, in cinemas now", 1, 1),
        product("Series marathon, stream it", 1, 0),
        product("Popcorn maker", 1, 2),
        product("Film score live, tickets", 1, 2),
    ],
];
