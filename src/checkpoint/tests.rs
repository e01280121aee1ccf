use super::*;
use crate::config::Model;

/// A store in plain memory.
#[derive(Clone, PartialEq, Debug)]
struct Memory(Vec<(Tensor, Vec<f32>)>);

impl Memory {
    fn new(list: &[(&str, &[u64])]) -> Memory {
        let make = |(name, shape): &(&str, &[u64])| {
            let tensor = Tensor { name: (*name).into(), shape: shape.to_vec() };
            let values = (0..tensor.len()).map(|i| i as f32 * 0.5 - name.len() as f32).collect();
            (tensor, values)
        };
        Memory(list.iter().map(make).collect())
    }
    fn zeroed(&self) -> Memory {
        Memory(self.0.iter().map(|(t, v)| (t.clone(), vec![0.0; v.len()])).collect())
    }
    fn of(&mut self, name: &str) -> &mut Vec<f32> {
        &mut self.0.iter_mut().find(|(t, _)| t.name == name).unwrap().1
    }
}

impl Store for Memory {
    fn tensors(&self) -> Vec<Tensor> {
        self.0.iter().map(|(t, _)| t.clone()).collect()
    }
    fn read(&mut self, name: &str, start: u64, len: usize) -> Result<Vec<f32>> {
        Ok(self.of(name)[start as usize..start as usize + len].to_vec())
    }
    fn write(&mut self, name: &str, start: u64, values: &[f32]) -> Result<()> {
        self.of(name)[start as usize..start as usize + values.len()].copy_from_slice(values);
        Ok(())
    }
}

const LIST: [(&str, &[u64]); 3] = [("emb_l.0.weight", &[70_000, 4]), ("bot_l.0.bias", &[3]), ("dqrm.scale.emb_l", &[1])];

fn state() -> State {
    let shape = Model::default().shape(None, None).unwrap();
    State {
        workers: 0,
        step: 42,
        epoch: 1,
        lines: 9,
        validation_auc: Some(0.75),
        provisional: true,
        shape,
        extra: vec![("dqrm.window.losses".into(), vec![0.5, 0.25])],
    }
}

fn saved(folder: &Path) -> (PathBuf, Memory) {
    let (path, mut memory) = (folder.join("last.safetensors"), Memory::new(&LIST));
    write(&path, &mut memory, &state()).unwrap().unwrap();
    (path, memory)
}

fn reason(path: &Path, memory: &Memory) -> String {
    let mut target = memory.zeroed();
    let text = Checkpoint::open(path).and_then(|mut c| c.load(&mut target)).unwrap_err().to_string();
    assert_eq!(target, memory.zeroed(), "nothing may be loaded from a bad file");
    text
}

#[test]
fn what_was_saved_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, memory) = saved(folder.path());
    let mut target = memory.zeroed();
    assert_eq!(Checkpoint::open(&path).unwrap().load(&mut target).unwrap(), state());
    assert_eq!(target, memory);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file stays");
    let first = std::fs::read(&path).unwrap();
    saved(folder.path());
    assert_eq!(std::fs::read(&path).unwrap(), first, "equal states give equal bytes");
}

#[test]
fn the_safetensors_crate_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut memory) = saved(folder.path());
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("bot_l.0.bias").unwrap().data(), bytemuck::cast_slice::<f32, u8>(memory.of("bot_l.0.bias")));
}

#[test]
fn a_truncated_file_says_both_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, memory) = saved(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    for cut in [bytes.len() - 1, bytes.len() / 2, 40, 8, 3, 0] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let text = reason(&path, &memory);
        assert!(text.contains(&cut.to_string()), "{cut}: {text}");
        assert!(cut < 1000 || text.contains(&bytes.len().to_string()) && text.contains("truncated"), "{cut}: {text}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    std::fs::write(&path, longer).unwrap();
    assert!(reason(&path, &memory).contains("longer than its header says"));
}

#[test]
fn an_altered_file_is_refused_wherever_it_was_altered() {
    let folder = tempfile::tempdir().unwrap();
    let (path, memory) = saved(folder.path());
    let bytes = std::fs::read(&path).unwrap();
    for place in [bytes.len() - 1, bytes.len() / 2] {
        let mut altered = bytes.clone();
        altered[place] ^= 1;
        std::fs::write(&path, altered).unwrap();
        assert!(reason(&path, &memory).contains("was altered"));
    }
    let mark = b"\"dqrm.step\":\"42\"";
    let place = bytes.windows(mark.len()).position(|w| w == mark).unwrap() + mark.len() - 3;
    let mut altered = bytes.clone();
    altered[place] = b'5';
    std::fs::write(&path, altered).unwrap();
    assert!(reason(&path, &memory).contains("was altered"), "the header is covered too");
}

#[test]
fn another_model_is_named_with_its_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = saved(folder.path());
    let other = Memory::new(&[("emb_l.0.weight", &[70_000, 8]), ("bot_l.0.bias", &[3]), ("dqrm.scale.emb_l", &[1])]);
    let text = reason(&path, &other);
    assert!(text.contains("`emb_l.0.weight` has shape [70000, 4] there, but [70000, 8] is needed"), "{text}");
    let other = Memory::new(&[("emb_l.1.weight", &[2, 2])]);
    assert!(reason(&path, &other).contains("no tensor `emb_l.1.weight`"));
    let other = Memory::new(&LIST[..2]);
    let text = Checkpoint::open(&path).unwrap().load(&mut other.zeroed()).unwrap_err().to_string();
    assert!(text.contains("`dqrm.scale.emb_l` that this model lacks"), "{text}");
}

/// A file with this header and `data` bytes of zeros.
fn forged(header: &str, data: usize) -> Result<Header, String> {
    let mut prefix = (header.len() as u64).to_le_bytes().to_vec();
    prefix.extend(header.as_bytes());
    let size = prefix.len() + data;
    decode(&prefix, size as u64)
}

#[test]
fn every_lie_of_a_header_is_refused() {
    let good = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    assert_eq!(forged(good, 8).unwrap().tensors.len(), 1);
    let lies = [
        ("overlap", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, 12),
        ("gap", r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#, 12),
        ("backwards", r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4),
        ("shape against bytes", r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8),
        ("shape overflows", r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}"#, 0),
        ("not JSON", "{", 0),
        ("not an object", "[]", 0),
        ("unknown type", r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#, 8),
        ("step", r#"{"__metadata__":{"dqrm.step":"-1"}}"#, 0),
        ("auc", r#"{"__metadata__":{"dqrm.validation_auc":"NaN"}}"#, 0),
        ("checksum", r#"{"__metadata__":{"dqrm.checksum":"12"}}"#, 0),
        ("shape text", r#"{"__metadata__":{"dqrm.shape":"{}"}}"#, 0),
        ("too little data", good, 7),
        ("too much data", good, 9),
    ];
    for (what, header, data) in lies {
        assert!(forged(header, data).is_err(), "{what}");
    }
    assert!(tensor_file::header_len(&u64::MAX.to_le_bytes(), 1 << 40).unwrap_err().contains("limit"));
    assert!(tensor_file::header_len(&100u64.to_le_bytes(), 50).unwrap_err().contains("truncated"));
}

#[test]
fn a_state_dict_of_another_origin_can_be_started_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let file = |dtype: &str| {
        let header = format!(
            r#"{{"emb_l.0.weight":{{"dtype":"{dtype}","shape":[2,1],"data_offsets":[0,8]}},"v_W":{{"dtype":"F16","shape":[2],"data_offsets":[8,12]}}}}"#
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(bytemuck::cast_slice(&[1.5f32, -2.0]));
        bytes.extend([0; 4]);
        std::fs::write(&path, bytes).unwrap();
    };
    file("F32");
    let mut memory = Memory::new(&[("emb_l.0.weight", &[2, 1]), ("dqrm.scale.emb_l", &[1])]).zeroed();
    assert_eq!(Checkpoint::open(&path).unwrap().load_weights(&mut memory).unwrap(), ["v_W"]);
    assert_eq!(memory.of("emb_l.0.weight"), &[1.5, -2.0]);
    assert!(reason(&path, &memory.zeroed()).contains("--init"));
    file("I32");
    assert!(Checkpoint::open(&path).unwrap().load_weights(&mut memory).unwrap_err().to_string().contains("as I32; only F32"));
}

#[test]
fn a_state_that_is_not_finite_is_never_saved() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut memory) = saved(folder.path());
    let good = std::fs::read(&path).unwrap();
    memory.of("emb_l.0.weight")[270_000] = f32::INFINITY;
    let found = write(&path, &mut memory, &state()).unwrap().unwrap_err();
    assert_eq!((found.tensor.as_str(), found.index), ("emb_l.0.weight", 270_000));
    assert_eq!(std::fs::read(&path).unwrap(), good);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let text = write(Path::new("/proc/no/last.safetensors"), &mut Memory::new(&LIST), &state()).unwrap_err().to_string();
    assert!(text.contains("/proc/no/last.safetensors"), "{text}");
}
