//! How much memory this computer has, for all or for this program.

use std::path::Path;

/// This computer's memory in bytes, on Linux.
pub fn memory() -> Option<u64> {
    meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// What of it this program can have without swapping, in bytes: what is free or can be freed, and no more than is left below
/// the limits on the groups of programs that it belongs to (a container's).
pub(crate) fn available() -> Option<u64> {
    let free = meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(left_of_groups(&groups, Path::new("/sys/fs/cgroup")).map_or(free, |left| free.min(left)))
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Where a version of control groups says what memory a group may have and has.
struct Names {
    tree: &'static str,
    limit: &'static str,
    used: &'static str,
    /// Of the line of `memory.stat` that says how much of it caches files that were not read lately, and can be freed.
    cache: &'static str,
}

const V1: Names = Names { tree: "memory", limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cache: "total_inactive_file" };
const V2: Names = Names { tree: "", limit: "memory.max", used: "memory.current", cache: "inactive_file" };

/// The least that is left of the groups in `/proc/self/cgroup` and of those around them: version 2 has one tree, version 1
/// one for memory.
fn left_of_groups(groups: &str, root: &Path) -> Option<u64> {
    let left = groups.lines().filter_map(group).flat_map(|(names, path)| {
        let tree = root.join(names.tree);
        // a container may see its own group as the root of the tree
        let around: Vec<_> = tree.join(path).ancestors().filter(|p| p.starts_with(&tree)).map(Path::to_path_buf).collect();
        around.into_iter().filter_map(move |dir| {
            let text = |name| std::fs::read_to_string(dir.join(name)).ok();
            left(&text(names.limit)?, &text(names.used).unwrap_or_default(), &text("memory.stat").unwrap_or_default(), names.cache)
        })
    });
    left.min()
}

/// The group that a line of `/proc/self/cgroup` names, below the root of its tree, where the line is about memory.
fn group(line: &str) -> Option<(&'static Names, &str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (kinds, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    if kinds.is_empty() {
        return Some((&V2, path));
    }
    kinds.split(',').any(|kind| kind == "memory").then_some((&V1, path))
}

/// What a group may still take: its limit without what it uses, where files that it caches and that can be freed do not count.
/// `None` without a limit.
fn left(limit: &str, used: &str, stat: &str, cache: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    let used: u64 = used.trim().parse().unwrap_or(0);
    let cached = stat.lines().find_map(|line| line.strip_prefix(cache)?.strip_prefix(' ')?.trim().parse().ok());
    Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_the_cache_do_not_count_as_used() {
        let stat = "anon 4000\nfile 900\ninactive_file_of_others 7\ninactive_file 600\nactive_file 300\n";
        assert_eq!(left("10000\n", "4900\n", stat, V2.cache), Some(5700));
        assert_eq!(left("max\n", "4900\n", stat, V2.cache), None);
        assert_eq!(left("4000\n", "4900\n", stat, V2.cache), Some(0), "more is used than may be");
        assert_eq!(left("4000\n", "500\n", stat, V2.cache), Some(4000), "numbers read at different times");
        assert_eq!(left("4000\n", "", "", V2.cache), Some(4000));
        let stat = "inactive_file 1\ntotal_cache 900\ntotal_inactive_file 250\n";
        assert_eq!(left("10000\n", "4900\n", stat, V1.cache), Some(5350));
        assert_eq!(left("9223372036854771712\n", "4900\n", stat, V1.cache), Some(9_223_372_036_854_771_712 - 4650));
    }

    #[test]
    fn lines_of_meminfo_are_found() {
        let text = "MemTotal:        2000 kB\nMemFree: 1 kB\nMemAvailable:    1500 kB\nHugePages_Total:       0\n";
        assert_eq!([meminfo(text, "MemTotal:"), meminfo(text, "MemAvailable:")], [Some(2_048_000), Some(1_536_000)]);
        assert_eq!([meminfo(text, "HugePages_Total:"), meminfo(text, "Swap:")], [None, None]);
    }

    #[test]
    fn the_least_that_is_left_of_the_groups_around_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(left_of_groups("0::/a/b\n", root), None);
        put("a/b/memory.max", "max\n");
        put("a/b/memory.current", "4800\n");
        assert_eq!(left_of_groups("0::/a/b\n", root), None);
        put("a/memory.max", "5000\n");
        assert_eq!(left_of_groups("0::/a/b\n", root), Some(5000));
        put("a/memory.current", "4900\n");
        put("a/memory.stat", "anon 4000\ninactive_file 800\n");
        assert_eq!(left_of_groups("0::/a/b\n", root), Some(900), "of a group around, used by all in it");
        put("a/b/memory.max", "4950\n");
        assert_eq!(left_of_groups("0::/a/b\n", root), Some(150));
        put("memory/small/memory.limit_in_bytes", "700\n");
        put("memory/small/memory.usage_in_bytes", "650\n");
        put("memory/small/memory.stat", "inactive_file 1\ntotal_inactive_file 30\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(left_of_groups("5:memory:/small\n4:cpu,cpuacct:/small\n", root), Some(80));
        assert_eq!(left_of_groups("4:cpu:/small\n", root), None);
        assert_eq!(left_of_groups("5:cpu,memory:/elsewhere\n0::/a/b\n", root), Some(150));
        assert_eq!(left_of_groups("nonsense\n\n:\n", root), None);
    }

    #[test]
    fn what_is_available_is_not_more_than_there_is() {
        if let Some(all) = memory() {
            assert!(available().is_none_or(|free| free <= all));
        }
    }
}
