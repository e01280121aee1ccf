//! How much memory this computer has, for all or for this program.

use std::path::Path;

/// This computer's memory in bytes, on Linux.
pub fn memory() -> Option<u64> {
    meminfo("MemTotal:")
}

/// What of it this program can have without swapping, in bytes: what is free or can be freed, and no more than a limit on
/// the group of programs that it belongs to (a container's).
pub(crate) fn available() -> Option<u64> {
    let free = meminfo("MemAvailable:")?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(limit_of_groups(&groups, Path::new("/sys/fs/cgroup")).map_or(free, |limit| free.min(limit)))
}

fn meminfo(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of the groups in `/proc/self/cgroup` and of those around them: version 2 has one tree, version 1 one for memory.
fn limit_of_groups(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (kinds, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default().trim_start_matches('/'));
        let (tree, name) = match kinds {
            "" => (root.to_path_buf(), "memory.max"),
            _ => (root.join("memory"), "memory.limit_in_bytes"),
        };
        let of_memory = kinds.is_empty() || kinds.split(',').any(|kind| kind == "memory");
        // a container may see its own group as the root of the tree
        let around = tree.join(path).ancestors().filter(|p| p.starts_with(&tree)).map(|p| p.join(name)).collect::<Vec<_>>();
        around.into_iter().filter(move |_| of_memory)
    });
    limits.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_the_groups_around_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(limit_of_groups("0::/a/b\n", root), None);
        put("a/b/memory.max", "max\n");
        assert_eq!(limit_of_groups("0::/a/b\n", root), None);
        put("a/memory.max", "5000\n");
        assert_eq!(limit_of_groups("0::/a/b\n", root), Some(5000));
        put("memory/small/memory.limit_in_bytes", "700\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit_of_groups("5:memory:/small\n4:cpu,cpuacct:/small\n", root), Some(700));
        assert_eq!(limit_of_groups("4:cpu:/small\n", root), None);
        assert_eq!(limit_of_groups("5:memory:/elsewhere\n0::/a/b\n", root), Some(5000));
        assert_eq!(limit_of_groups("nonsense\n\n:\n", root), None);
    }

    #[test]
    fn what_is_available_is_not_more_than_there_is() {
        if let Some(all) = memory() {
            assert!(available().is_some_and(|free| free > 0 && free <= all));
        }
    }
}
