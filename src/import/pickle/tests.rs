use super::*;

/// The error for a pickle with this body.
fn refused(body: &[u8]) -> String {
    let text = decode(&[b"\x80\x02", body].concat()).unwrap_err();
    assert!(text.starts_with("refused: the pickle ") && !text.contains('\n'), "{text}");
    text
}

fn repeated(part: &[u8], times: usize) -> Vec<u8> {
    part.repeat(times)
}

#[test]
fn plain_values_are_read() {
    let pickle = decode(b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x07X\x01\x00\x00\x00b]q\x01(M\x01\x02J\xff\xff\xff\xff\x8a\x00\x8a\x02\x00\x80eX\x01\x00\x00\x00cG?\xf8\x00\x00\x00\x00\x00\x00X\x01\x00\x00\x00d\x88N\x89\x87u.").unwrap();
    let Value::Dict(items) = pickle.root() else { panic!("{:?}", pickle.root()) };
    let value = |name: &str| items.iter().find(|(key, _)| pickle.text(*key) == Some(name)).map(|(_, value)| pickle.value(*value)).unwrap();
    assert_eq!((value("a"), value("c")), (&Value::Int(7), &Value::Float(1.5)));
    let Value::List(list) = value("b") else { panic!() };
    let numbers: Vec<_> = list.iter().map(|&id| pickle.value(id).clone()).collect();
    assert_eq!(numbers, [513, -1, 0, -32768].map(Value::Int));
    let Value::Tuple(three) = value("d") else { panic!() };
    assert_eq!(three.iter().map(|&id| pickle.value(id).clone()).collect::<Vec<_>>(), [Value::Bool(true), Value::None, Value::Bool(false)]);
    let framed = decode(b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.").unwrap();
    assert_eq!(framed.root(), &Value::Text("a".into()));
    let ordered = decode(b"\x80\x02ccollections\nOrderedDict\n)R}X\x09\x00\x00\x00_metadata}sb.").unwrap();
    assert_eq!(ordered.root(), &Value::Dict(Vec::new()), "versions of layers are passed over");
}

#[test]
fn what_a_state_dict_does_not_need_is_refused_by_name() {
    for (body, says) in [
        (&b"cos\nsystem\nX\x02\x00\x00\x00id\x85R."[..], "calls `os.system`, which no state dict needs"),
        (b"cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", "calls `builtins.eval`"),
        (b"c__builtin__\nexec\n.", "calls `__builtin__.exec`"),
        (b"ctorch.storage\n_load_from_bytes\n.", "calls `torch.storage._load_from_bytes`"),
        (b"ctorch\nload\n.", "calls `torch.load`"),
        (b"ctorch\nComplexFloatStorage\n.", "calls `torch.ComplexFloatStorage`"),
        (b"ctorch._utils\n_rebuild_tensor_v3\n.", "calls `torch._utils._rebuild_tensor_v3`"),
        (b"cnumpy.core.multiarray\n_reconstruct\n.", "calls `numpy.core.multiarray._reconstruct`"),
        (b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.", "calls `os.system`"),
        (b"ca\x1b[2J\nb\n.", "calls `a\\u{1b}[2J.b`"),
        (b"K\x01X\x01\x00\x00\x00a\x93.", "names a function by an integer and a text"),
        (b"K\x01)R.", "calls an integer"),
        (b"ccollections\nOrderedDict\nK\x01R.", "with an integer for its arguments"),
        (b"ccollections\nOrderedDict\nK\x01\x85R.", "calls OrderedDict with 1 arguments that do not fit it"),
        (b"ctorch\nFloatStorage\n)R.", "calls Storage(F32) with 0 arguments"),
        (b"ctorch._utils\n_rebuild_parameter\nK\x01\x88}\x87R.", "calls RebuildParameter with 3 arguments that do not fit it"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00))\x89Nt\x52.", "makes a tensor from an integer"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.", "calls Encode with 2 arguments that do not fit it"),
        (b"ccollections\nOrderedDict\n}b.", "sets attributes of a function"),
        (b"}K\x01b.", "sets attributes of a dictionary from an integer (opcode BUILD)"),
        (b"}}X\x09\x00\x00\x00__class__K\x01sb.", "sets the attribute `__class__` of a dictionary"),
        (b"]}b.", "sets attributes of a list from a dictionary"),
        (b"(ios\nsystem\n.", "has opcode INST (0x69) at byte 3"),
        (b"cos\nsystem\n", "calls `os.system`"),
        (b"\x81.", "has opcode NEWOBJ (0x81) at byte 2"),
        (b"\x82\x01.", "has opcode EXT1"),
        (b"U\x01a.", "has opcode SHORT_BINSTRING"),
        (b"\xff.", "has opcode 0xff at byte 2"),
        (b"P1\n.", "has opcode PERSID"),
        (b"K\x01Q.", "names something outside of itself by an integer"),
        (b"(NNNNNtQ.", "names a storage by parts that do not fit"),
        (
            b"(X\x06\x00\x00\x00modulectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
            "names a `module` outside of itself",
        ),
    ] {
        let text = refused(body);
        assert!(text.contains(says), "`{says}` is not in: {text}");
    }
}

#[test]
fn a_broken_pickle_is_refused() {
    for (body, says) in [
        (&b""[..], "ends after 2 bytes"),
        (b".", "empty stack"),
        (b"K", "ends after"),
        (b"NN.", "ends with 1 values that belong to nothing"),
        (b"N(.", "empty stack"),
        (b"N.N", "has 1 bytes after its end"),
        (b"t.", "closes a container that it did not open"),
        (b"N(\x85.", "empty stack"),
        (b"K\x01K\x02a.", "appends to an integer"),
        (b"]K\x01K\x02s.", "sets a key of a list"),
        (b"}(K\x01u.", "a key without a value"),
        (b"h\x05.", "asks for value 5"),
        (b"X\x01\x00\x00\x00\xff.", "not UTF-8"),
        (b"cabc", "a name without an end"),
    ] {
        let text = refused(body);
        assert!(text.contains(says), "`{says}` is not in: {text}");
    }
    assert!(decode(b"(dp0\n.").unwrap_err().contains("begins with 0x28, not with its protocol"));
    assert!(decode(b"\x80\x07N.").unwrap_err().contains("protocol 7"));
    assert!(decode(b"").unwrap_err().contains("ends after 0 bytes"));
}

#[test]
fn what_is_beyond_a_limit_is_refused() {
    assert!(refused(b"\x8a\xff").contains("an integer of 255 bytes"));
    assert!(refused(b"\x8b\xff\xff\xff\x7f").contains("an integer of 2147483647 bytes"));
    assert!(refused(b"X\xff\xff\xff\xffa").contains("a text of 4294967295 bytes, more than the limit"));
    assert!(refused(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa").contains("more than the limit"));
    assert!(refused(&[b"c", &repeated(b"x", 500)[..], b"\nb\n."].concat()).contains("within 128 bytes"));
    assert!(refused(&repeated(b"(", 100)).contains("more than 64 deep"));
    assert!(refused(&[b"N", &repeated(b"\x85", 100)[..]].concat()).contains("more than 64 deep"));
    assert!(refused(&[&repeated(b"]", 100)[..], &repeated(b"a", 99), b"."].concat()).contains("more than 64 deep"));
    assert!(refused(&repeated(b"N", MAX_STACK + 1)).contains("stacks more than 65536 values"));
    assert!(refused(&[b"]", &repeated(b"Na", MAX_VALUES)[..]].concat()).contains("has more than 1048576 values"));
    assert!(size_of::<Value>() <= 32, "a value takes {} bytes", size_of::<Value>());
    let bomb: Vec<u8> = (0..=MAX_MEMO as u32).flat_map(|n| [&b"r"[..], &n.to_le_bytes()].concat()).collect();
    assert!(refused(&[b"N", &bomb[..]].concat()).contains("keeps more than 1048576 values"));
    assert!(decode(&vec![b'N'; MAX_PICKLE as usize + 1]).unwrap_err().contains("more than the limit of 16777216"));
}

#[test]
fn a_memo_that_doubles_costs_no_more_than_its_bytes() {
    // Each tuple holds the one before it twice: 2^60 values for whoever would write them out.
    let doubling: Vec<u8> = (0..60u8).flat_map(|n| [b'q', n, b'h', n, 0x86]).collect();
    let pickle = decode(&[b"\x80\x02N", &doubling[..], b"."].concat()).unwrap();
    assert_eq!(pickle.values.len(), 61);
    // A large memo number takes no memory of its own.
    assert!(decode(b"\x80\x02Nr\xff\xff\xff\xff.").is_ok());
}

#[test]
fn a_tensor_of_too_many_dimensions_is_refused() {
    let storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ";
    let body = |sizes: &[u8]| [b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage[..], b"K\x00", sizes, b")\x89}tR."].concat();
    assert!(refused(&body(&[b"(", &repeated(b"K\x01", 9)[..], b"t"].concat())).contains("a tensor of 9 dimensions"));
    assert!(refused(&body(b"K\x01\x85")).contains("1 dimensions with 0 strides"));
    assert!(refused(&body(b"N")).contains("size or stride is None"));
    assert!(refused(&body(b"N\x85")).contains("one of whose sizes or strides is None"));
    assert!(matches!(decode(&[b"\x80\x02", &body(b")")[..]].concat()).unwrap().root(), Value::Tensor(t) if t.sizes.is_empty()));
}
