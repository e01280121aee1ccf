//! A `.pt` file is made that is honest; then one thing in it is not.

use dqrm::import::check;

/// What a pickle claims of a tensor.
#[derive(Clone)]
pub(super) struct Claim {
    name: &'static str,
    class: &'static str,
    key: &'static str,
    len: i64,
    offset: i64,
    sizes: Vec<i64>,
    strides: Vec<i64>,
}

fn claim(name: &'static str, key: &'static str, sizes: &[i64], strides: &[i64]) -> Claim {
    let len = sizes.iter().product();
    Claim { name, class: "FloatStorage", key, len, offset: 0, sizes: sizes.into(), strides: strides.into() }
}

/// The smallest DLRM: one table of two rows of width 1, one layer in each MLP.
pub(super) fn honest() -> Vec<Claim> {
    vec![
        claim("emb_l.0.weight", "0", &[2, 1], &[1, 1]),
        claim("bot_l.0.weight", "1", &[1, 1], &[1, 1]),
        claim("bot_l.0.bias", "2", &[1], &[1]),
        claim("top_l.0.weight", "3", &[1, 2], &[2, 1]),
        claim("top_l.0.bias", "4", &[1], &[1]),
    ]
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn long(n: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &n.to_le_bytes()].concat()
}

fn tuple(numbers: &[i64]) -> Vec<u8> {
    [b"(".to_vec(), numbers.iter().flat_map(|&n| long(n)).collect(), b"t".to_vec()].concat()
}

/// A state dict's pickle, with `more` after its tensors.
pub(super) fn pickle(claims: &[Claim], more: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x80\x02}(".to_vec();
    for c in claims {
        bytes.extend(text(c.name));
        bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        bytes.extend(text("storage"));
        bytes.extend(format!("ctorch\n{}\n", c.class).bytes());
        bytes.extend([text(c.key), text("cpu"), long(c.len), b"tQ".to_vec(), long(c.offset)].concat());
        bytes.extend([tuple(&c.sizes), tuple(&c.strides), b"\x89}tR".to_vec()].concat());
    }
    bytes.extend(b"u");
    bytes.extend(more);
    bytes.extend(b".");
    bytes
}

/// An entry of a zip file.
#[derive(Clone)]
pub(super) struct Stored {
    name: String,
    bytes: Vec<u8>,
    method: u16,
    flags: u16,
    /// Lies where the entry before it does.
    overlaps: bool,
    /// The size in the directory, if not the true one.
    said: Option<u32>,
}

fn stored(name: &str, bytes: &[u8]) -> Stored {
    Stored { name: name.into(), bytes: bytes.into(), method: 0, flags: 0, overlaps: false, said: None }
}

/// A zip file without checksums, as PyTorch can be told to write it.
pub(super) fn zip(entries: &[Stored]) -> Vec<u8> {
    let (mut file, mut directory, mut at) = (Vec::new(), Vec::new(), 0);
    for e in entries {
        if !e.overlaps {
            at = file.len() as u32;
        }
        let len = e.said.unwrap_or(e.bytes.len() as u32);
        let name = (e.name.len() as u16).to_le_bytes();
        let common =
            [&e.flags.to_le_bytes()[..], &e.method.to_le_bytes(), &[0; 8], &len.to_le_bytes(), &len.to_le_bytes(), &name, &[0; 2]].concat();
        file.extend([&b"PK\x03\x04\x14\x00"[..], &common, e.name.as_bytes(), &e.bytes].concat());
        directory.extend([&b"PK\x01\x02\x14\x00\x14\x00"[..], &common, &[0; 10], &at.to_le_bytes(), e.name.as_bytes()].concat());
    }
    let (count, start) = ((entries.len() as u16).to_le_bytes(), (file.len() as u32).to_le_bytes());
    let len = (directory.len() as u32).to_le_bytes();
    file.extend(directory);
    file.extend([&b"PK\x05\x06\x00\x00\x00\x00"[..], &count, &count, &len, &start, &[0; 2]].concat());
    file
}

/// The entries of a PyTorch file with this pickle and storages 0 to 4 of the honest sizes.
pub(super) fn entries(pickle: &[u8]) -> Vec<Stored> {
    let mut all = vec![stored("m/data.pkl", pickle), stored("m/byteorder", b"little"), stored("m/version", b"3\n")];
    for (key, len) in [2, 1, 1, 2, 1].into_iter().enumerate() {
        all.push(stored(&format!("m/data/{key}"), &0.5f32.to_le_bytes().repeat(len)));
    }
    all
}

#[track_caller]
fn refused(file: &[u8], says: &str) {
    let text = check(file).unwrap_err();
    assert!(text.contains(says) && !text.contains('\n'), "`{says}` is not in: {text}");
}

/// An honest file but for one tensor.
#[track_caller]
fn claims(place: usize, change: impl Fn(&mut Claim), says: &str) {
    let mut all = honest();
    change(&mut all[place]);
    refused(&zip(&entries(&pickle(&all, b""))), says);
}

/// An honest file but for one entry.
#[track_caller]
fn lies(change: impl Fn(&mut Vec<Stored>), says: &str) {
    let mut all = entries(&pickle(&honest(), b""));
    change(&mut all);
    refused(&zip(&all), says);
}

#[test]
fn the_honest_file_is_read() {
    let found = check(&zip(&entries(&pickle(&honest(), b"")))).unwrap();
    assert_eq!((found.shape.rows, found.shape.dim, found.shape.top), (vec![2], 1, vec![2, 1]));
}

#[test]
fn a_pickle_that_would_run_something_is_refused() {
    for (more, says) in [
        (&b"cos\nsystem\nX\x02\x00\x00\x00id\x85R"[..], "refused: the pickle calls `os.system`, which no state dict needs"),
        (b"cbuiltins\neval\n", "`builtins.eval`"),
        (b"}X\x01\x00\x00\x00aK\x01sb", "sets the attribute `a`"),
        (b"ccollections\nOrderedDict\nK\x01\x85R", "calls OrderedDict"),
        (b"\x8b\xff\xff\xff\x7f", "an integer of 2147483647 bytes"),
        (b"\x81", "opcode NEWOBJ"),
    ] {
        refused(&zip(&entries(&pickle(&honest(), more))), says);
    }
}

#[test]
fn claims_about_tensors_are_compared_with_the_file() {
    claims(0, |c| c.len = 3, "refused: the tensor `emb_l.0.weight` claims a storage of 3 F32 elements, but `m/data/0` has 8 bytes");
    claims(0, |c| c.len = i64::MAX, "claims a storage of 9223372036854775807");
    claims(0, |c| c.len = -1, "claims a storage of -1");
    claims(0, |c| c.class = "DoubleStorage", "2 F64 elements, but `m/data/0` has 8 bytes");
    claims(0, |c| c.class = "IntStorage", "holds `emb_l.0.weight` as I32; weights may be F32");
    claims(0, |c| c.key = "9", "lies in `m/data/9`, which the file does not have");
    claims(0, |c| c.key = "../0", "lies in `m/data/../0`, which the file does not have");
    claims(0, |c| c.offset = 1, "outside of its storage of 2 elements");
    claims(0, |c| c.offset = -1, "negative");
    claims(0, |c| c.offset = i64::MAX, "outside");
    claims(0, |c| c.strides = vec![-1, 1], "negative");
    claims(0, |c| c.strides = vec![i64::MAX, 1], "outside");
    claims(0, |c| c.strides = vec![2, 1], "outside");
    claims(0, |c| c.strides = vec![1], "2 dimensions with 1 strides");
    claims(0, |c| c.sizes = vec![-2, 1], "negative");
    claims(0, |c| c.sizes = vec![i64::MAX, i64::MAX], "outside");
    claims(0, |c| (c.sizes, c.strides) = (vec![1000, 1], vec![0, 0]), "outside");
    claims(0, |c| c.sizes = vec![0, 1], "table 0 has 0 rows");
    claims(3, |c| (c.sizes, c.strides) = (vec![2, 1], vec![1, 1]), "`top_l.0.bias` has shape [1], but `top_l.0.weight` has [2, 1]");
    claims(4, |c| c.name = "top_l.2.bias", "has no tensor `top_l.0.bias`");
    claims(1, |c| c.name = "emb_l.0.weight", "the name `emb_l.0.weight` stands twice");
    claims(1, |c| c.name = "module.emb_l.0.weight", "`emb_l.0.weight` and `module.emb_l.0.weight` both mean `emb_l.0.weight`");
    claims(0, |c| c.name = "emb_l.0.weight_q", "quotient-remainder");
    claims(0, |c| c.name = "emb_l.0.embs.weight", "mixed dimensions");
    claims(2, |c| c.name = "v_W_l.0", "learned pooling");
    claims(0, |c| c.name = "emb_l.1.weight", "has no tensor `emb_l.0.weight`");
}

#[test]
fn many_tensors_on_one_storage_cannot_make_a_large_run() {
    let names: Vec<&'static str> = (0..200).map(|k| &*Box::leak(format!("emb_l.{k}.weight").into_boxed_str())).collect();
    let mut all = honest();
    let first = all[0].clone();
    all.extend(names[1..].iter().map(|name| Claim { name, key: "big", len: 1 << 16, sizes: vec![1 << 16, 1], ..first.clone() }));
    let mut file = entries(&pickle(&all, b""));
    file.push(stored("m/data/big", &vec![0; 4 << 16]));
    refused(&zip(&file), "several of them share one storage");
}

#[test]
fn a_zip_file_that_lies_is_refused() {
    lies(|e| e[3].method = 8, "has a compressed entry `m/data/0` (deflate)");
    lies(|e| e[3].method = 93, "(method 93)");
    lies(|e| e[3].flags = 1, "has an encrypted entry `m/data/0`");
    lies(|e| e[3].said = Some(1 << 30), "the entry `m/data/0` of 1073741824 bytes lies outside of the file");
    lies(|e| e[3].said = Some(100), "the entry `m/data/1` overlaps the one before it");
    lies(|e| e[4].overlaps = true, "overlaps the one before it");
    lies(|e| e[4].name = "m/data/0".into(), "the entry `m/data/0` stands twice");
    lies(|e| drop(e.remove(3)), "lies in `m/data/0`, which the file does not have");
    lies(|e| drop(e.remove(0)), "it has no `data.pkl`");
    lies(|e| e[2] = stored("n/data.pkl", b"\x80\x02N."), "has two pickles");
    lies(|e| e[2].name = "m/constants.pkl".into(), "is a TorchScript file");
    lies(|e| e[1].bytes = b"big".to_vec(), "`big` byte order");
    lies(|e| e[0].bytes = b"\x80\x02N.".to_vec(), "holds None, not a state dict");
    lies(
        |e| e[0].bytes = b"\x80\x02}X\x05\x00\x00\x00epochK\x01s.".to_vec(),
        "no tensors where a state dict should be; its keys are `epoch`",
    );
}

#[test]
fn a_dictionary_that_holds_itself_ends() {
    let key = text("state_dict");
    lies(|e| e[0].bytes = [b"\x80\x02}q\x00", &key[..], b"h\x00s."].concat(), "holds no tensors");
}

#[test]
fn every_cut_is_noticed() {
    let file = zip(&entries(&pickle(&honest(), b"")));
    (0..file.len()).for_each(|n| assert!(check(&file[..n]).is_err(), "cut at {n}"));
    refused(&file[..file.len() / 2], "is truncated or no zip file");
    let real = std::fs::read(super::folder().join("small.pt")).unwrap();
    for n in (0..real.len()).step_by(7) {
        assert!(check(&real[..n]).is_err(), "cut at {n}");
    }
}

#[test]
fn an_altered_weight_is_noticed_by_its_checksum() {
    let mut file = std::fs::read(super::folder().join("small.pt")).unwrap();
    let safetensors = std::fs::read(super::folder().join("small.safetensors")).unwrap();
    let last = &safetensors[safetensors.len() - 16..]; // some weights, found by their values
    let place = file.windows(16).position(|w| w == last).unwrap();
    file[place] ^= 1;
    refused(&file, "was altered or damaged: the checksum of `small/data/");
}

#[test]
fn a_safetensors_file_that_lies_is_refused() {
    let make = |header: &str, values: usize| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; values]].concat();
    refused(&make("{}", 0), "has no tensor `emb_l.0.weight`");
    refused(&make("{\"emb_l.0.weight\":{\"dtype\":\"I8\",\"shape\":[2,1],\"data_offsets\":[0,2]}}", 2), "holds `emb_l.0.weight` as I8");
    refused(&make("{\"emb_l.0.weight\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}}", 4), "truncated");
    refused(&make("{\"emb_l.0.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,1],\"data_offsets\":[0,2]}}", 2), "as another type");
    refused(&make("{\"emb_l.0.weight_q\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}}", 8), "quotient-remainder");
}
