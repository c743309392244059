//! Writes directories of iqdb 0.4.0 and files of iqdb 1.0.0, which iqdb-persist 1.0.0 writes, with the
//! crates themselves. Beside each lies a file of JSON lines: what the crate that wrote it reads from a copy of it.
//!
//! Ids are texts: digits, or pairs of hexadecimal digits behind 0x for ids of 1.0 that are bytes.
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if (c as u32) < 0x20 => write!(out, "\\u{:04x}", c as u32).unwrap(),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn float(out: &mut String, value: f64) {
    if value.is_nan() {
        write!(out, "{{\"$float\":\"{:016x}\"}}", value.to_bits()).unwrap();
    } else if value.is_infinite() {
        let sign = if value < 0.0 { "-" } else { "" };
        write!(out, "{{\"$float\":\"{sign}infinity\"}}").unwrap();
    } else {
        write!(out, "{value:?}").unwrap();
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn list<T>(out: &mut String, around: [char; 2], items: impl Iterator<Item = T>, put: impl Fn(&mut String, T)) {
    out.push(around[0]);
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(',');
        }
        put(out, item);
    }
    out.push(around[1]);
}

fn line(out: &mut String, id: &str, vector: &[f32], payload: impl Fn(&mut String)) {
    write!(out, "{{\"id\":\"{id}\",\"vector\":").unwrap();
    list(out, ['[', ']'], vector.iter(), |out, x| write!(out, "{x:?}").unwrap());
    out.push_str(",\"payload\":");
    payload(out);
    out.push_str("}\n");
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else if from.exists() {
        fs::copy(from, to).unwrap();
    }
}

// ---- 0.4 ----

fn old_value(out: &mut String, value: &old::PayloadValue) {
    use old::PayloadValue::*;
    match value {
        Null => out.push_str("null"),
        Bool(b) => write!(out, "{b}").unwrap(),
        Int(i) => write!(out, "{i}").unwrap(),
        Float(f) => float(out, *f),
        Text(t) => text(out, t),
        Bytes(b) => write!(out, "{{\"$bytes\":\"{}\"}}", hexadecimal(b)).unwrap(),
        Array(items) => list(out, ['[', ']'], items.iter(), old_value),
        Object(fields) => list(out, ['{', '}'], fields.iter(), |out, (key, value)| {
            text(out, key);
            out.push(':');
            old_value(out, value);
        }),
        _ => panic!("a type that 0.4.0 does not have"),
    }
}

/// Writes what `fill` does to a database of 0.4, closed or only flushed and dropped, and what is read from a copy.
fn old_case(golden: &Path, name: &str, ids: &[u64], fill: impl Fn(&Path)) {
    let path = golden.join(name);
    fill(&path);
    let twin = golden.join(format!("{name}.copy"));
    copy(&path, &twin);
    let db = old::Iqdb::open(&twin).unwrap();
    let mut out = String::new();
    for &id in ids {
        if let Some(record) = db.get(old::RecordId::new(id)).unwrap() {
            line(&mut out, &id.to_string(), record.vector().as_slice(), |out| match record.payload() {
                None => out.push_str("null"),
                Some(payload) => list(out, ['{', '}'], payload.iter(), |out, (key, value)| {
                    text(out, key);
                    out.push(':');
                    old_value(out, value);
                }),
            });
        }
    }
    assert_eq!(out.lines().count(), db.len());
    drop(db);
    fs::remove_dir_all(&twin).unwrap();
    fs::write(golden.join(format!("{name}.jsonl")), out).unwrap();
}

fn vector(data: &[f32]) -> old::Vector {
    old::Vector::new(data.to_vec()).unwrap()
}

fn plain(id: u64, data: &[f32]) -> old::Record {
    old::Record::new(id, vector(data))
}

fn with(id: u64, data: &[f32], fields: &[(&str, old::PayloadValue)]) -> old::Record {
    let mut payload = old::Payload::new();
    for (key, value) in fields {
        payload.insert(*key, value.clone());
    }
    old::Record::with_payload(id, vector(data), payload)
}

fn all_types() -> Vec<(&'static str, old::PayloadValue)> {
    use old::PayloadValue::*;
    let inner = [("deep".to_string(), Array(vec![Int(1), Text("two".into()), Null, Array(vec![])]))];
    vec![
        ("null", Null),
        ("yes", Bool(true)),
        ("no", Bool(false)),
        ("least", Int(i64::MIN)),
        ("most", Int(i64::MAX)),
        ("half", Float(0.5)),
        ("minus zero", Float(-0.0)),
        ("tiny", Float(5e-324)),
        ("infinite", Float(f64::NEG_INFINITY)),
        ("nan", Float(f64::from_bits(0x7ff8_0000_0000_1234))),
        ("text", Text("Grüße, 世界 \u{0}\u{1f980}".into())),
        ("empty text", Text(String::new())),
        ("bytes", Bytes(vec![0, 255, 128, 7])),
        ("object", Object(inner.into_iter().collect())),
        ("empty object", Object(Default::default())),
        ("", Text("an empty key".into())),
    ]
}

fn nested(depth: usize) -> old::PayloadValue {
    (0..depth).fold(old::PayloadValue::Int(1), |inner, _| old::PayloadValue::Array(vec![inner]))
}

fn write_old(golden: &Path) {
    let first = |path: &Path| {
        let db = old::Iqdb::open(path).unwrap();
        db.upsert(plain(1, &[1.0, 0.0])).unwrap();
        db.upsert(with(2, &[0.25, -0.5], &[("kind", "doc".into()), ("year", 2026i64.into())])).unwrap();
        db.upsert(plain(3, &[9.0, 9.0])).unwrap();
        db.upsert(with(4, &[-0.0, 1e-40], &all_types())).unwrap();
        db.upsert(with(0, &[0.0, 0.0], &[])).unwrap();
        db.upsert(plain(u64::MAX, &[3.4028235e38, -1e-45])).unwrap();
        db.upsert(plain(1, &[0.0, 1.0])).unwrap();
        assert!(db.delete(old::RecordId::new(3)).unwrap());
        assert!(!db.delete(old::RecordId::new(77)).unwrap());
        db.flush().unwrap();
        db
    };
    let ids = [0, 1, 2, 3, 4, 5, 6, u64::MAX];
    old_case(golden, "v0.4-log", &ids, |path| drop(first(path)));
    old_case(golden, "v0.4-snapshot", &ids, |path| first(path).close().unwrap());
    old_case(golden, "v0.4-both", &ids, |path| {
        first(path).close().unwrap();
        let db = old::Iqdb::open(path).unwrap();
        db.upsert(plain(5, &[5.0, 5.0])).unwrap();
        db.upsert(with(2, &[2.0, 2.0], &[("kind", "note".into())])).unwrap();
        db.delete(old::RecordId::new(0)).unwrap();
        db.upsert(plain(6, &[6.0, 6.0])).unwrap();
        db.delete(old::RecordId::new(6)).unwrap();
        db.flush().unwrap();
    });
    old_case(golden, "v0.4-empty", &[], |path| old::Iqdb::open(path).unwrap().close().unwrap());
    // What the original takes and iqdb.h does not; 8 was of the dimension of the others before.
    old_case(golden, "v0.4-unfit", &(1..=8).collect::<Vec<_>>(), |path| {
        let db = old::Iqdb::open(path).unwrap();
        db.upsert(plain(1, &[1.0, 1.0])).unwrap();
        db.upsert(plain(2, &[2.0, 2.0, 2.0])).unwrap();
        db.upsert(with(3, &[3.0, 3.0], &[("a\0b", "a key with U+0000".into())])).unwrap();
        db.upsert(with(4, &[4.0, 4.0], &[("depth 64", nested(63))])).unwrap();
        db.upsert(with(5, &[5.0, 5.0], &[("depth 65", nested(64))])).unwrap();
        db.upsert(with(6, &[6.0, 6.0], &[("depth 80", nested(79)), ("zzz", "behind it".into())])).unwrap();
        db.upsert(plain(7, &[7.0])).unwrap();
        db.upsert(plain(8, &[8.0, 8.0])).unwrap();
        db.upsert(plain(8, &[8.0, 8.0, 8.0, 8.0])).unwrap();
        db.flush().unwrap();
    });
}

// ---- 1.0 ----

fn new_case(golden: &Path, name: &str, config: &dyn Fn() -> new::IqdbConfig, ids: &[new::VectorId], fill: impl Fn(&Path)) {
    let path = golden.join(name);
    fill(&path);
    let twin = golden.join("copy");
    let log = |path: &Path| PathBuf::from(format!("{}.wal", path.display()));
    copy(&path, &twin);
    copy(&log(&path), &log(&twin));
    let db = new::Iqdb::open_with(&twin, config()).unwrap();
    let mut out = String::new();
    for id in ids {
        if let Some((vector, metadata)) = db.get(id).unwrap() {
            let name = match id {
                new::VectorId::U64(id) => id.to_string(),
                new::VectorId::Bytes(bytes) => format!("0x{}", hexadecimal(bytes)),
            };
            line(&mut out, &name, vector.as_slice(), |out| match &metadata {
                None => out.push_str("null"),
                Some(metadata) => list(out, ['{', '}'], metadata.iter(), |out, (key, value)| {
                    use new::Value::*;
                    text(out, key);
                    out.push(':');
                    match value {
                        String(t) => text(out, t),
                        Int(i) => write!(out, "{i}").unwrap(),
                        Float(f) => float(out, *f),
                        Bool(b) => write!(out, "{b}").unwrap(),
                        Null => out.push_str("null"),
                    }
                }),
            });
        }
    }
    assert_eq!(out.lines().count(), db.len());
    drop(db);
    let _ = fs::remove_file(log(&twin));
    fs::remove_file(&twin).unwrap();
    fs::write(golden.join(format!("{name}.jsonl")), out).unwrap();
}

fn new_vector(data: &[f32]) -> new::Vector {
    new::Vector::new(data.to_vec()).unwrap()
}

fn metadata(fields: &[(&str, new::Value)]) -> Option<new::Metadata> {
    let map: std::collections::BTreeMap<String, new::Value> =
        fields.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
    Some(new::Metadata::from(map))
}

fn write_new(golden: &Path) {
    use new::{Compression, DistanceMetric, IndexKind, IqdbConfig, Value, VectorId};
    let bytes = VectorId::Bytes(vec![0xab, 0x00, 0xcd].into());
    let mut ids: Vec<VectorId> = (0..60).map(VectorId::U64).collect();
    ids.push(VectorId::U64(u64::MAX));
    ids.push(bytes.clone());
    let fill = |db: &new::Iqdb| {
        let types = metadata(&[
            ("text", Value::String("Grüße".into())),
            ("int", Value::Int(i64::MIN)),
            ("float", Value::Float(-0.0)),
            ("nan", Value::Float(f64::from_bits(0x7ff8_0000_0000_1234))),
            ("bool", Value::Bool(true)),
            ("null", Value::Null),
        ]);
        db.upsert(VectorId::U64(0), new_vector(&[-0.0, 1.0, 2.0]), types).unwrap();
        db.upsert(VectorId::U64(u64::MAX), new_vector(&[1.0, 0.5, 0.25]), metadata(&[])).unwrap();
        for id in 1..40u64 {
            db.upsert(VectorId::U64(id), new_vector(&[id as f32, 1.0, 1.0]), metadata(&[("year", Value::Int(2026))]))
                .unwrap();
        }
        db.upsert(VectorId::U64(7), new_vector(&[7.0, 7.0, 7.0]), None).unwrap();
        assert!(db.delete(&VectorId::U64(8)).unwrap());
    };
    let cases: [(&str, Box<dyn Fn() -> IqdbConfig>); 4] = [
        ("v1.0-flat", Box::new(|| IqdbConfig::new(3, DistanceMetric::Cosine))),
        (
            "v1.0-hnsw-zstd",
            Box::new(|| {
                IqdbConfig::new(3, DistanceMetric::Euclidean)
                    .index(IndexKind::Hnsw(Default::default()))
                    .compression(Compression::Zstd { level: 3 })
            }),
        ),
        (
            "v1.0-ivf-lz4",
            Box::new(|| {
                IqdbConfig::new(3, DistanceMetric::Manhattan)
                    .index(IndexKind::Ivf(Default::default()))
                    .compression(Compression::Lz4)
            }),
        ),
        ("v1.0-hamming", Box::new(|| IqdbConfig::new(3, DistanceMetric::Hamming))),
    ];
    for (name, config) in &cases {
        new_case(golden, name, config, &ids, |path| {
            let db = new::Iqdb::open_with(path, config()).unwrap();
            fill(&db);
            if *name == "v1.0-hamming" {
                db.upsert(bytes.clone(), new_vector(&[1.0, 1.0, 1.0]), None).unwrap();
            }
            db.close().unwrap();
        });
    }
    // Closed once, then written to and dropped: a snapshot, and a log with what came later.
    let config = || IqdbConfig::new(3, DistanceMetric::DotProduct).compression(Compression::Lz4);
    new_case(golden, "v1.0-log", &config, &ids, |path| {
        let db = new::Iqdb::open_with(path, config()).unwrap();
        fill(&db);
        db.close().unwrap();
        let db = new::Iqdb::open_with(path, config()).unwrap();
        db.upsert(VectorId::U64(50), new_vector(&[5.0, 0.0, 5.0]), metadata(&[("late", Value::Bool(false))])).unwrap();
        db.upsert(VectorId::U64(9), new_vector(&[9.0, 9.0, 9.0]), None).unwrap();
        db.delete(&VectorId::U64(10)).unwrap();
        db.upsert(bytes.clone(), new_vector(&[1.0, 1.0, 1.0]), None).unwrap();
    });
}

fn main() {
    let golden = PathBuf::from(std::env::args().nth(1).expect("the directory to write"));
    fs::create_dir_all(&golden).unwrap();
    write_old(&golden);
    write_new(&golden);
}
