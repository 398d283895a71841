//! The contract of a [`Store`] as a suite that every implementation runs.
//!
//! A [`Subject`] opens, reopens, crashes and damages one store; [`run`] puts it through every case, each on a fresh subject. A case is named
//! for the promise it checks, and a broken promise panics with that name.

use std::collections::BTreeMap;

use mangrove_crdt::persist::{Row, Table};

use super::{KEY_BYTES_MAX, Limit, Store, StoreError, Sync};

/// One store and the world below it, as the suite handles them.
pub trait Subject {
    /// The implementation.
    type Store: Store;
    /// Opens the store. The limit may differ from the last time's.
    fn open(&mut self, limit: Limit) -> Self::Store;
    /// Loses what the contract allows to be lost when the power goes, or as much of it as the subject can.
    fn crash(&mut self, store: Self::Store);
    /// Closes the store and flips one bit in what it keeps of this row's value; false if the subject cannot reach it.
    fn damage(&mut self, store: Self::Store, table: Table, key: &[u8]) -> bool;
}

/// Runs every case, each on a subject of its own.
///
/// # Panics
/// When a promise is broken; that is what it is for.
pub fn run<S: Subject>(mut subject: impl FnMut() -> S) {
    for (name, case) in cases::<S>() {
        println!("conformance: {name}");
        case(&mut subject());
    }
}

type Case<S> = fn(&mut S);

fn cases<S: Subject>() -> [(&'static str, Case<S>); 14] {
    [
        ("an empty store is empty", empty),
        ("what is put is read, in its own table", put_and_read),
        ("a later put takes the place of an earlier one", overwrite),
        ("a removed row is gone, and removing nothing is nothing", remove),
        ("within a batch the last row of a key counts", last_row_counts),
        ("a scan is in the order of the bytes and knows its prefix", order_and_prefix),
        ("everything is there after closing and opening", reopen),
        ("a crash keeps what was synced, and of the rest whole batches from the oldest on", crash),
        ("an empty batch may sync", empty_batch_syncs),
        ("large values and long keys are kept", large),
        ("many rows are kept", many),
        ("rows that no store takes are refused, and their batch with them", bad_rows),
        ("a flipped bit is an error, never a value", damage),
        ("it is refused before it is full, and what removes still goes on", full),
    ]
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Row {
    Row { table, key: key.to_vec(), value: Some(value.to_vec()) }
}

fn gone(table: Table, key: &[u8]) -> Row {
    Row { table, key: key.to_vec(), value: None }
}

/// Every row of the store, by reading each table whole.
pub fn contents(store: &impl Store) -> BTreeMap<(Table, Vec<u8>), Vec<u8>> {
    let mut rows = BTreeMap::new();
    for table in Table::ALL {
        let mut last: Option<Vec<u8>> = None;
        store
            .scan(table, b"", &mut |key, value| {
                assert!(last.as_deref().is_none_or(|last| last < key), "keys rise strictly");
                last = Some(key.to_vec());
                rows.insert((table, key.to_vec()), value.to_vec());
            })
            .expect("a sound store is read to its end");
    }
    rows
}

/// What [`contents`] should give after these batches.
fn expected(batches: &[Vec<Row>]) -> BTreeMap<(Table, Vec<u8>), Vec<u8>> {
    let mut rows = BTreeMap::new();
    for row in batches.iter().flatten() {
        match &row.value {
            Some(value) => rows.insert((row.table, row.key.clone()), value.clone()),
            None => rows.remove(&(row.table, row.key.clone())),
        };
    }
    rows
}

fn commit(store: &mut impl Store, rows: &[Row], sync: Sync) {
    store.commit(rows, sync).expect("a sound store with room takes a batch");
}

/// Bytes that no compression makes smaller.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (word >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn empty<S: Subject>(subject: &mut S) {
    let store = subject.open(Limit::NONE);
    assert!(contents(&store).is_empty());
    assert_eq!(store.get(Table::Meta, b"anything"), Ok(None));
    assert!(store.room() > 1 << 20);
}

fn put_and_read<S: Subject>(subject: &mut S) {
    let mut store = subject.open(Limit::NONE);
    let rows: Vec<Row> = Table::ALL.iter().map(|&table| put(table, b"same key", table.name().as_bytes())).collect();
    commit(&mut store, &rows, Sync::Buffered);
    for table in Table::ALL {
        assert_eq!(store.get(table, b"same key"), Ok(Some(table.name().as_bytes().to_vec())));
    }
    commit(&mut store, &[put(Table::Meta, b"empty value", b"")], Sync::Buffered);
    assert_eq!(store.get(Table::Meta, b"empty value"), Ok(Some(Vec::new())));
    assert_eq!(store.get(Table::Meta, b"empty"), Ok(None));
    assert_eq!(contents(&store), expected(&[rows, vec![put(Table::Meta, b"empty value", b"")]]));
}

fn overwrite<S: Subject>(subject: &mut S) {
    let mut store = subject.open(Limit::NONE);
    for n in 0..50u8 {
        commit(&mut store, &[put(Table::Registers, b"hot", &[n; 100])], Sync::Buffered);
        assert_eq!(store.get(Table::Registers, b"hot"), Ok(Some(vec![n; 100])));
    }
    assert_eq!(contents(&store).len(), 1);
}

fn remove<S: Subject>(subject: &mut S) {
    let mut store = subject.open(Limit::NONE);
    commit(&mut store, &[put(Table::Feeds, b"a", b"1"), put(Table::Feeds, b"b", b"2")], Sync::Buffered);
    commit(&mut store, &[gone(Table::Feeds, b"a"), gone(Table::Feeds, b"never there")], Sync::Buffered);
    assert_eq!(store.get(Table::Feeds, b"a"), Ok(None));
    assert_eq!(contents(&store), expected(&[vec![put(Table::Feeds, b"b", b"2")]]));
    commit(&mut store, &[put(Table::Feeds, b"a", b"again")], Sync::Buffered);
    assert_eq!(store.get(Table::Feeds, b"a"), Ok(Some(b"again".to_vec())));
}

fn last_row_counts<S: Subject>(subject: &mut S) {
    let mut store = subject.open(Limit::NONE);
    let rows = [
        put(Table::Meta, b"put twice", b"1"),
        put(Table::Meta, b"put, removed", b"1"),
        gone(Table::Meta, b"removed, put"),
        put(Table::Meta, b"put twice", b"2"),
        gone(Table::Meta, b"put, removed"),
        put(Table::Meta, b"removed, put", b"1"),
    ];
    commit(&mut store, &rows, Sync::Disk);
    let want = expected(&[rows.to_vec()]);
    assert_eq!(want.len(), 2);
    assert_eq!(contents(&store), want);
    drop(store);
    assert_eq!(contents(&subject.open(Limit::NONE)), want);
}

fn order_and_prefix<S: Subject>(subject: &mut S) {
    let mut store = subject.open(Limit::NONE);
    let keys: [&[u8]; 9] = [b"\xff\xff\xff", b"b", b"a\xff", b"a", b"\x00", b"a\xff\xff", b"a\x00", b"\xff", b"ab"];
    let rows: Vec<Row> = keys.iter().map(|key| put(Table::Registers, key, key)).collect();
    commit(&mut store, &rows, Sync::Buffered);
    for prefix in [&b""[..], b"a", b"a\xff", b"\xff", b"\xff\xff", b"\x00", b"c", b"abc"] {
        let mut found = Vec::new();
        store.scan(Table::Registers, prefix, &mut |key, value| found.push((key.to_vec(), value.to_vec()))).expect("a sound store");
        let mut want: Vec<_> = keys.iter().filter(|key| key.starts_with(prefix)).map(|key| (key.to_vec(), key.to_vec())).collect();
        want.sort();
        assert_eq!(found, want, "prefix {prefix:x?}");
    }
}

fn reopen<S: Subject>(subject: &mut S) {
    let mut batches = Vec::new();
    for life in 0..4u8 {
        let mut store = subject.open(Limit::NONE);
        assert_eq!(contents(&store), expected(&batches), "life {life}");
        for n in 0..20u8 {
            let batch =
                vec![put(Table::Registers, &[n], &[life; 30]), gone(Table::Registers, &[n / 2]), put(Table::Changes, &[life, n], b"x")];
            // Buffered alone must do: closing is no crash.
            commit(&mut store, &batch, Sync::Buffered);
            batches.push(batch);
        }
    }
    assert_eq!(contents(&subject.open(Limit::NONE)), expected(&batches));
}

fn crash<S: Subject>(subject: &mut S) {
    let mut kept: Vec<Vec<Row>> = Vec::new();
    for life in 0..6u8 {
        let mut store = subject.open(Limit::NONE);
        for n in 0..4u8 {
            let rows = vec![put(Table::Registers, &[life, n], b"synced"), put(Table::Registers, b"last", &[life, n])];
            commit(&mut store, &rows, if n == 3 { Sync::Disk } else { Sync::Buffered });
            kept.push(rows);
        }
        let mut unsynced = Vec::new();
        for n in 4..8u8 {
            let rows = vec![put(Table::Registers, &[life, n], b"buffered"), put(Table::Registers, b"last", &[life, n])];
            commit(&mut store, &rows, Sync::Buffered);
            unsynced.push(rows);
        }
        if life % 2 == 1 {
            store.sync().expect("a sound store syncs");
            kept.append(&mut unsynced);
        }
        subject.crash(store);

        let found = contents(&subject.open(Limit::NONE));
        // Which of the buffered batches survive is the disk's choice, but only a prefix is a state the store ever had.
        let survived = (0..=unsynced.len()).find(|&n| {
            let prefix: Vec<_> = kept.iter().chain(&unsynced[..n]).cloned().collect();
            found == expected(&prefix)
        });
        let Some(survived) = survived else { panic!("life {life}: no prefix of the batches explains what was found: {found:?}") };
        kept.extend(unsynced.drain(..survived));
    }
}

fn empty_batch_syncs<S: Subject>(subject: &mut S) {
    let mut store = subject.open(Limit::NONE);
    commit(&mut store, &[put(Table::Meta, b"k", b"v")], Sync::Buffered);
    commit(&mut store, &[], Sync::Buffered);
    commit(&mut store, &[], Sync::Disk);
    subject.crash(store);
    assert_eq!(subject.open(Limit::NONE).get(Table::Meta, b"k"), Ok(Some(b"v".to_vec())));
}

fn large<S: Subject>(subject: &mut S) {
    let noise = noise(1, 12 << 20);
    let rows = vec![
        put(Table::Documents, &vec![0xff; KEY_BYTES_MAX], b"long key"),
        put(Table::Documents, b"noise", &noise),
        put(Table::Documents, b"zeros", &vec![0; 3 << 20]),
    ];
    let mut store = subject.open(Limit::NONE);
    commit(&mut store, &rows, Sync::Disk);
    let want = expected(&[rows]);
    assert!(contents(&store) == want);
    drop(store);
    assert!(contents(&subject.open(Limit::NONE)) == want);
}

fn many<S: Subject>(subject: &mut S) {
    let mut batches = Vec::new();
    let mut store = subject.open(Limit::NONE);
    for batch in 0..40u32 {
        let rows: Vec<Row> = (0..1_000u32)
            .map(|n| {
                // A walk over 30,011 keys, so that later batches overwrite and remove earlier ones'.
                let key = (batch * 1_000 + n).wrapping_mul(7_919) % 30_011;
                let value = (n % 11 != 0).then(|| [key.to_le_bytes(), batch.to_le_bytes()].concat());
                Row { table: Table::Registers, key: key.to_be_bytes().to_vec(), value }
            })
            .collect();
        commit(&mut store, &rows, Sync::Buffered);
        batches.push(rows);
    }
    let want = expected(&batches);
    assert!(want.len() > 20_000);
    assert!(contents(&store) == want);
    assert!(store.bytes() > 0);
    drop(store);
    assert!(contents(&subject.open(Limit::NONE)) == want);
}

fn bad_rows<S: Subject>(subject: &mut S) {
    let mut store = subject.open(Limit::NONE);
    let good = put(Table::Meta, b"good", b"1");
    for bad in [put(Table::Meta, b"", b"1"), gone(Table::Feeds, b""), put(Table::Meta, &vec![1; KEY_BYTES_MAX + 1], b"1")] {
        let refused = store.commit(&[good.clone(), bad.clone()], Sync::Disk);
        let want = StoreError::Row { table: bad.table, key_bytes: bad.key.len(), value_bytes: bad.value.map_or(0, |value| value.len()) };
        assert_eq!(refused, Err(want));
    }
    assert!(contents(&store).is_empty());
    commit(&mut store, &[good], Sync::Disk);
    assert_eq!(contents(&store).len(), 1);
}

fn damage<S: Subject>(subject: &mut S) {
    let mut store = subject.open(Limit::NONE);
    commit(&mut store, &[put(Table::Meta, b"a", b"1"), put(Table::Meta, b"b", b"2"), put(Table::Feeds, b"a", b"3")], Sync::Disk);
    if !subject.damage(store, Table::Meta, b"b") {
        return;
    }
    let store = subject.open(Limit::NONE);
    let is_corrupt = |error: &StoreError| matches!(error, StoreError::Corrupt { table: Some(Table::Meta), key, .. } if key == b"b");
    assert!(store.get(Table::Meta, b"b").is_err_and(|error| is_corrupt(&error)));
    let mut seen = Vec::new();
    let scanned = store.scan(Table::Meta, b"", &mut |key, _| seen.push(key.to_vec()));
    assert!(scanned.is_err_and(|error| is_corrupt(&error)));
    assert_eq!(seen, [b"a"]);
    assert_eq!(store.get(Table::Meta, b"a"), Ok(Some(b"1".to_vec())));
    assert_eq!(store.get(Table::Feeds, b"a"), Ok(Some(b"3".to_vec())));
}

fn full<S: Subject>(subject: &mut S) {
    // Room for what the store itself takes, and some hundreds of the batches below.
    let limit = Limit { bytes_max: 24 << 20, reserve_bytes: 4 << 20 };
    let mut store = subject.open(limit);
    let mut batches: Vec<Vec<Row>> = Vec::new();
    let refused = loop {
        let n = batches.len() as u32;
        assert!(n < 1_000, "64 MiB went into a store limited to 24");
        let batch = vec![put(Table::Registers, &n.to_be_bytes(), &noise(u64::from(n), 64 << 10))];
        match store.commit(&batch, Sync::Buffered) {
            Ok(()) => batches.push(batch),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
    assert!(batches.len() > 100, "it was refused after {} batches", batches.len());
    // While files are merged there are old and new ones for a moment, for which the reserve is there too.
    assert!(store.bytes() <= limit.bytes_max + limit.reserve_bytes, "refused before full, not after: {} bytes", store.bytes());
    // Not nothing: what works in the background may just have given some back.
    assert!(store.room() < 8 << 20, "{} bytes of room", store.room());
    assert!(contents(&store) == expected(&batches), "what was refused left nothing behind");

    // A small write is refused as well: the reserve is for what removes.
    let mut small = 0;
    while store.commit(&[put(Table::Meta, &u32::to_be_bytes(small), &noise(u64::from(small), 4_096))], Sync::Buffered).is_ok() {
        small += 1;
        assert!(small < 1_000, "the reserve is open to everyone");
    }
    // On a busy machine merging may take more for a moment than is kept for removals: whoever writes tidies up and tries again, as the writing thread does.
    let mut refusals = 0;
    for n in 0..50u32 {
        let removal = vec![gone(Table::Registers, &n.to_be_bytes()), put(Table::Changes, &n.to_be_bytes(), b"removed")];
        while let Err(error) = store.commit(&removal, Sync::Disk) {
            refusals += 1;
            assert!(matches!(error, StoreError::Full { .. }) && refusals < 100, "a removal goes on when the store is full: {error}");
            store.tidy().expect("a store that is full is sound");
            #[allow(clippy::disallowed_methods, reason = "stores live in real time")]
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        batches.push(removal);
    }
    let mut found = contents(&store);
    found.retain(|(table, _), _| *table != Table::Meta);
    assert!(found == expected(&batches));

    // And a larger limit opens it again.
    drop(store);
    let mut store = subject.open(Limit::of(256 << 20));
    commit(&mut store, &[put(Table::Meta, b"after", b"1")], Sync::Disk);
}
