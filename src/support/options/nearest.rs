//! Finds the known name that was probably meant.

/// Returns a hint for an unknown name: the name that was probably meant, otherwise all known names.
pub fn did_you_mean(name: &str, known: &[&str]) -> Option<String> {
    if let Some(near) = nearest(name, known.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let list: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
    match list.as_slice() {
        [] => None,
        [only] => Some(format!("use {only}")),
        _ => Some(format!("use one of {}", list.join(", "))),
    }
}

/// Returns the known name nearest to `name`, if at most a third of it differs.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&name, candidate), candidate))
        .filter(|(steps, candidate)| {
            let longest = name.chars().count().max(candidate.chars().count());
            *steps <= (longest / 3).max(1)
        })
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_name_is_suggested() {
        let known = ["path", "format", "rotate_bytes_max"];
        assert_eq!(nearest("ptah", known), Some("path"));
        assert_eq!(nearest("rotate-byte-max", known), Some("rotate_bytes_max"));
        assert_eq!(nearest("Format", known), Some("format"));
        assert_eq!(nearest("colour", known), None);
    }
}
