//! Puts the shards of a sweep together: the same files as of one that was never divided.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Manifest, Shard, aggregate, table::Table, told, write};

/// Reads all shards in these directories, and writes the whole into another, which may be one of them. What comes back are all rows.
///
/// # Errors
/// They are of different experiments, or divided differently; a shard is missing, not finished, or there twice.
pub fn merge(dirs: &[PathBuf], out: &Path) -> Result<Table, String> {
    let mut first: Option<(&PathBuf, Manifest)> = None;
    let mut found: BTreeMap<Shard, PathBuf> = BTreeMap::new();
    for dir in dirs {
        let manifest =
            Manifest::read(dir)?.ok_or_else(|| format!("{} is no directory of a sweep: it has no manifest.json", dir.display()))?;
        match &first {
            Some((other, first)) => {
                let differ = |what| format!("{} and {} are different experiments: {what}", other.display(), dir.display());
                first.same(&manifest).map_err(differ)?;
            }
            None => first = Some((dir, manifest)),
        }
        for (shard, path) in shards(dir)? {
            if let Some(other) = found.insert(shard, path.clone()) {
                return Err(format!("shard {} is there twice: {} and {}", shard.index, other.display(), path.display()));
            }
        }
    }
    let Some((source, manifest)) = first else { return Err("there is nothing to merge".into()) };
    let Some(of) = found.keys().map(|shard| shard.of).max() else { return Err("there is no shard: runs-I-of-N.csv".into()) };
    if let Some((_, path)) = found.iter().find(|(shard, _)| shard.of != of) {
        return Err(format!("{} is of another division than into {of}", path.display()));
    }
    let mut whole = Table::new(&manifest);
    for shard in (0..of).map(|index| Shard { index, of }) {
        let path = found.get(&shard).ok_or_else(|| format!("shard {} of {of} is missing, or not finished", shard.index))?;
        let table = Table::read(path, &manifest)?.unwrap_or_else(|| Table::new(&manifest));
        let runs: Vec<_> = manifest.runs(shard).collect();
        if table.len() != runs.len() || !runs.iter().all(|run| table.has(run)) {
            return Err(format!("{} has not the runs of its shard", path.display()));
        }
        whole.extend(table);
    }
    copy(source, out, manifest.arms.len())?;
    manifest.write(out)?;
    write(&out.join("runs.csv"), &whole.bytes(&manifest))?;
    write(&out.join("aggregate.csv"), &aggregate::bytes(&manifest, &whole))?;
    Ok(whole)
}

/// The finished shards in a directory.
fn shards(dir: &Path) -> Result<Vec<(Shard, PathBuf)>, String> {
    let mut shards = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| told(dir, &error))? {
        let path = entry.map_err(|error| told(dir, &error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let shard = name.strip_prefix("runs-").and_then(|name| name.strip_suffix(".csv"));
        if let Some(shard) = shard.and_then(|shard| shard.replace("-of-", "/").parse().ok()) {
            shards.push((shard, path));
        }
    }
    shards.sort();
    Ok(shards)
}

/// The scenario and its arms.
fn copy(from: &Path, to: &Path, arms: usize) -> Result<(), String> {
    fs::create_dir_all(to.join("arms")).map_err(|error| told(to, &error))?;
    if let Some(there) = Manifest::read(to)? {
        let here = Manifest::read(from)?.ok_or("the manifest is gone")?;
        there.same(&here).map_err(|what| format!("{} has another experiment: {what}", to.display()))?;
    }
    for name in std::iter::once("scenario.toml".to_owned()).chain((0..arms).map(|at| format!("arms/{at}.toml"))) {
        let bytes = fs::read(from.join(&name)).map_err(|error| told(&from.join(&name), &error))?;
        write(&to.join(&name), &bytes)?;
    }
    Ok(())
}
