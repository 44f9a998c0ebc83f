//! Path patterns as sequences of segments, and an index that finds the patterns which can match
//! one path with another pattern.
//!
//! The index looks only at patterns that overlap, so a comparison of many patterns takes time in
//! proportion to the overlaps and not to the square of the patterns.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A segment that no pattern contains as text, because patterns are ASCII.
const OTHER: &str = "…";

/// A segment of a pattern.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Segment {
    Text(String),
    /// A parameter between a prefix and a suffix.
    Parameter(String, String),
}

/// A pattern in parts. The folder of a pattern without a rest is the whole pattern.
struct Parts {
    folder: Vec<Segment>,
    /// The prefix of the rest at the end. `None` means that the pattern has no rest.
    rest: Option<String>,
}

fn parts(pattern: &str) -> Parts {
    // `{{` and `}}` are braces as text.
    let is_rest = |text: &str| text.replace("{{", "").contains("{*");
    let texts: Vec<&str> = pattern.split('/').skip(1).collect();
    let (last, folder) = texts.split_last().unwrap_or((&"", &[]));
    let mut folder: Vec<Segment> = folder.iter().map(|text| segment(text)).collect();
    if is_rest(last) {
        let prefix = last.find("{*").map_or("", |start| &last[..start]).to_owned();
        return Parts { folder, rest: Some(prefix) };
    }
    folder.push(segment(last));
    Parts { folder, rest: None }
}

/// The forms of the paths that a pattern matches. A rest is up to `depth` segments long.
pub(super) fn forms(pattern: &str, depth: usize) -> Vec<Vec<Segment>> {
    let Parts { folder, rest } = parts(pattern);
    let Some(first) = rest else { return vec![folder] };
    let with = |rest: &[Segment]| [folder.as_slice(), rest].concat();
    let (empty, any) =
        (Segment::Text(String::new()), Segment::Parameter(String::new(), String::new()));
    let mut forms = Vec::new();
    if first.is_empty() {
        forms.push(with(std::slice::from_ref(&empty)));
        forms.extend((!folder.is_empty()).then(|| folder.clone()));
    }
    let mut rest = vec![Segment::Parameter(first, String::new())];
    for _ in 0..depth {
        forms.push(with(&rest));
        forms.push(with(&[rest.as_slice(), std::slice::from_ref(&empty)].concat()));
        rest.push(any.clone());
    }
    forms
}

fn segment(text: &str) -> Segment {
    let plain = |text: &str| text.replace("{{", "{").replace("}}", "}");
    let masked = text.replace("{{", "  ");
    let Some(start) = masked.find('{') else { return Segment::Text(plain(text)) };
    let end = masked[start..].find('}').map_or(text.len(), |length| start + length + 1);
    Segment::Parameter(plain(&text[..start]), plain(&text[end..]))
}

/// One path of each form that both patterns match.
pub(super) fn common_paths(one: &[Vec<Segment>], other: &[Vec<Segment>]) -> BTreeSet<String> {
    let pairs = one.iter().flat_map(|one| other.iter().map(move |other| (one, other)));
    pairs.filter_map(|(one, other)| common_path(one, other)).collect()
}

fn common_path(one: &[Segment], other: &[Segment]) -> Option<String> {
    if one.len() != other.len() {
        return None;
    }
    let mut path = String::new();
    for (one, other) in one.iter().zip(other) {
        path.push('/');
        path.push_str(&common_text(one, other)?);
    }
    Some(path)
}

/// A text that both segments match.
fn common_text(one: &Segment, other: &Segment) -> Option<String> {
    match (one, other) {
        (Segment::Text(one), Segment::Text(other)) => (one == other).then(|| one.clone()),
        (Segment::Text(text), Segment::Parameter(prefix, suffix))
        | (Segment::Parameter(prefix, suffix), Segment::Text(text)) => {
            fits(text, prefix, suffix).then(|| text.clone())
        }
        (Segment::Parameter(prefix, suffix), Segment::Parameter(other_prefix, other_suffix)) => {
            joint(prefix, other_prefix, suffix, other_suffix)
        }
    }
}

/// Whether a parameter between this prefix and this suffix matches the text.
fn fits(text: &str, prefix: &str, suffix: &str) -> bool {
    let inner = text.strip_prefix(prefix).and_then(|text| text.strip_suffix(suffix));
    inner.is_some_and(|inner| !inner.is_empty())
}

/// A text with both prefixes and both suffixes.
fn joint(prefix: &str, other_prefix: &str, suffix: &str, other_suffix: &str) -> Option<String> {
    let longer = |one: &'_ str, other: &'_ str| -> String {
        if one.len() < other.len() { other.to_owned() } else { one.to_owned() }
    };
    let (start, end) = (longer(prefix, other_prefix), longer(suffix, other_suffix));
    let is_joint = [prefix, other_prefix].iter().all(|one| start.starts_with(one))
        && [suffix, other_suffix].iter().all(|one| end.ends_with(one));
    is_joint.then(|| format!("{start}{OTHER}{end}"))
}

/// Numbered patterns at hosts.
#[derive(Default)]
pub(super) struct PatternIndex {
    all: Node,
    /// The patterns of each host. `None` means the patterns for any host.
    hosts: HashMap<Option<String>, Node>,
}

impl PatternIndex {
    pub fn insert(&mut self, host: Option<&str>, pattern: &str, number: usize) {
        let parts = parts(pattern);
        self.all.insert(&parts, number);
        self.hosts.entry(host.map(str::to_owned)).or_default().insert(&parts, number);
    }

    /// The numbers of the patterns that can match a request which this pattern matches, and of
    /// few others.
    pub fn overlapping(&self, host: Option<&str>, pattern: &str) -> BTreeSet<usize> {
        let Parts { mut folder, rest } = parts(pattern);
        let has_rest = rest.is_some();
        folder.extend(non_empty(rest));
        let mut found = BTreeSet::new();
        match host {
            None => self.all.overlapping(&folder, has_rest, &mut found),
            Some(_) => {
                for node in self.nodes_of(host) {
                    node.overlapping(&folder, has_rest, &mut found);
                }
            }
        }
        found
    }

    /// The numbers of the patterns that match a request with this host and path, and of few others.
    pub fn matching(&self, host: Option<&str>, path: &str) -> BTreeSet<usize> {
        let text = |text: &str| Segment::Text(text.to_owned());
        let segments: Vec<Segment> = path.split('/').skip(1).map(text).collect();
        let mut found = BTreeSet::new();
        for node in self.nodes_of(host) {
            node.overlapping(&segments, false, &mut found);
        }
        found
    }

    /// The patterns for any host, and those of this host.
    fn nodes_of(&self, host: Option<&str>) -> impl Iterator<Item = &Node> {
        let own = host.map(|host| Some(host.to_owned()));
        [Some(None), own].into_iter().flatten().filter_map(|host| self.hosts.get(&host))
    }
}

/// The segment of a rest with this prefix. A rest without a prefix can be empty, so it has none.
fn non_empty(rest: Option<String>) -> Option<Segment> {
    let prefix = rest.filter(|prefix| !prefix.is_empty())?;
    Some(Segment::Parameter(prefix, String::new()))
}

/// The patterns that begin with the same segments.
#[derive(Default)]
struct Node {
    texts: BTreeMap<String, Self>,
    /// By prefix and suffix.
    parameters: BTreeMap<(String, String), Self>,
    /// The patterns that end here.
    ends: Vec<usize>,
    /// The patterns whose rest begins here, which match all paths below.
    rests: Vec<usize>,
}

impl Node {
    fn insert(&mut self, Parts { folder, rest }: &Parts, number: usize) {
        let mut node = self;
        for segment in folder.iter().cloned().chain(non_empty(rest.clone())) {
            node = match segment {
                Segment::Text(text) => node.texts.entry(text).or_default(),
                Segment::Parameter(prefix, suffix) => {
                    node.parameters.entry((prefix, suffix)).or_default()
                }
            };
        }
        let list = if rest.is_some() { &mut node.rests } else { &mut node.ends };
        list.push(number);
    }

    /// Adds the patterns that overlap with these segments and, if `has_rest`, any segments after
    /// them.
    fn overlapping(&self, segments: &[Segment], has_rest: bool, found: &mut BTreeSet<usize>) {
        found.extend(&self.rests);
        let Some((first, segments)) = segments.split_first() else {
            if has_rest {
                self.add_all(found);
            } else {
                found.extend(&self.ends);
            }
            return;
        };
        let mut visit = |child: &Self| child.overlapping(segments, has_rest, found);
        match first {
            Segment::Text(text) => {
                self.texts.get(text).into_iter().for_each(&mut visit);
                for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
                    let begun = self.with_prefix(&text[..end]).filter(|((prefix, suffix), _)| {
                        prefix.len() == end && fits(text, prefix, suffix)
                    });
                    begun.for_each(|(_, child)| visit(child));
                    if self.parameters.is_empty() {
                        break;
                    }
                }
            }
            Segment::Parameter(prefix, suffix) => {
                let texts = self.texts.range(prefix.clone()..);
                let texts = texts.take_while(|(text, _)| text.starts_with(prefix.as_str()));
                texts.filter(|(text, _)| fits(text, prefix, suffix)).for_each(|(_, c)| visit(c));
                let is_joint =
                    |other: &(String, String)| joint(prefix, &other.0, suffix, &other.1).is_some();
                let longer = self.parameters.range((prefix.clone(), String::new())..);
                let longer = longer.take_while(|((other, _), _)| other.starts_with(prefix));
                longer.filter(|(other, _)| is_joint(other)).for_each(|(_, child)| visit(child));
                for end in (0..prefix.len()).filter(|end| prefix.is_char_boundary(*end)) {
                    let shorter = self.with_prefix(&prefix[..end]);
                    shorter.filter(|(other, _)| is_joint(other)).for_each(|(_, c)| visit(c));
                }
            }
        }
    }

    /// The parameters with exactly this prefix.
    fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&(String, String), &Self)> {
        let from = (prefix.to_owned(), String::new());
        let owned = prefix.to_owned();
        self.parameters.range(from..).take_while(move |((other, _), _)| *other == owned)
    }

    fn add_all(&self, found: &mut BTreeSet<usize>) {
        found.extend(&self.ends);
        found.extend(&self.rests);
        self.texts.values().chain(self.parameters.values()).for_each(|child| child.add_all(found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERNS: &[&str] = &[
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/a/{x}",
        "/{x}",
        "/{x}/b",
        "/{*rest}",
        "/a/{*rest}",
        "/a-{x}",
        "/{x}.png",
        "/a-{x}.png",
        "/a/b-{*rest}",
        "/a/b-1/c",
        "/{{a}}",
        "/é",
        "/a/{x}/{*rest}",
    ];

    #[test]
    fn index_finds_every_pattern_that_overlaps() {
        let mut index = PatternIndex::default();
        for (number, pattern) in PATTERNS.iter().enumerate() {
            index.insert(None, pattern, number);
        }
        for pattern in PATTERNS {
            let found = index.overlapping(None, pattern);
            let own = forms(pattern, 5);
            for (number, other) in PATTERNS.iter().enumerate() {
                let paths = common_paths(&own, &forms(other, 5));
                assert!(paths.is_empty() || found.contains(&number), "{pattern} {other}");
                for path in paths {
                    assert!(index.matching(None, &path).contains(&number), "{path} {other}");
                }
            }
        }
        // Patterns that do not overlap are not found, so the work is not quadratic.
        let of = |pattern| index.overlapping(None, pattern).into_iter().map(|n| PATTERNS[n]);
        assert_eq!(of("/é/x/y").collect::<Vec<_>>(), ["/{*rest}"]);
    }

    #[test]
    fn host_selects_its_own_patterns_and_those_for_any_host() {
        let mut index = PatternIndex::default();
        for (number, host) in [None, Some("a"), Some("b")].into_iter().enumerate() {
            index.insert(host, "/x", number);
        }
        assert_eq!(index.overlapping(Some("a"), "/x"), [0, 1].into());
        assert_eq!(index.overlapping(None, "/x"), [0, 1, 2].into());
        assert_eq!(index.matching(Some("b"), "/x"), [0, 2].into());
        assert_eq!(index.matching(None, "/x"), [0].into());
    }
}
