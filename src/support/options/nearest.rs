//! The known name that was probably meant.

/// A hint for a name that does not exist: the one that was probably meant, else all there are.
pub fn did_you_mean(name: &str, known: &[&str]) -> Option<String> {
    if let Some(near) = nearest(name, known.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let list: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
    match list.as_slice() {
        [] => None,
        [only] => Some(format!("there is only {only} here")),
        _ => Some(format!("there are {} here", list.join(", "))),
    }
}

/// The known name nearest to `name`, if one is near: at most a third of it differs.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| (distance(&name, candidate), candidate))
        .filter(|(steps, candidate)| {
            let longest = name.chars().count().max(candidate.chars().count());
            *steps <= (longest / 3).max(1)
        })
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, taken away, replaced or swapped with their neighbour to make one of the other
/// (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    let mut previous = None;
    for (row, letter) in from.chars().enumerate() {
        let mut line = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let at =
                |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&above, column) + usize::from(letter != *other);
            let added = at(&line, column) + 1;
            let taken = at(&above, column + 1) + 1;
            let mut steps = replaced.min(added).min(taken);
            let swapped = column
                .checked_sub(1)
                .filter(|left| previous == Some(*other) && to.get(*left) == Some(&letter));
            if let Some(left) = swapped {
                steps = steps.min(at(&before, left) + 1);
            }
            line.push(steps);
        }
        previous = Some(letter);
        before = std::mem::replace(&mut above, line);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_letters_added_taken_replaced_and_swapped() {
        for (from, to, steps) in [
            ("", "", 0),
            ("", "path", 4),
            ("path", "path", 0),
            ("pth", "path", 1),
            ("ptah", "path", 1),
            ("paths", "path", 1),
            ("bath", "path", 1),
            ("ulr", "url", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(from, to), steps, "{from} {to}");
            assert_eq!(distance(to, from), steps, "{to} {from}");
        }
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        let known = ["path", "format", "rotate_bytes_max"];
        assert_eq!(nearest("ptah", known), Some("path"));
        assert_eq!(nearest("rotate-byte-max", known), Some("rotate_bytes_max"));
        assert_eq!(nearest("Format", known), Some("format"));
        assert_eq!(nearest("colour", known), None);
    }
}
