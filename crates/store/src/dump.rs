//! The hex dumps in the documents of formats, as bytes.

/// The bytes of the block that is marked `hex`: an offset, bytes, and a remark behind `|` on each line.
pub(crate) fn documented(text: &str) -> Vec<u8> {
    let (_, block) = text.split_once("```hex\n").expect("there is a dump");
    let (block, _) = block.split_once("```").expect("it ends");
    let mut bytes = Vec::new();
    for line in block.lines().filter(|line| !line.is_empty()) {
        let (line, _) = line.split_once('|').unwrap_or((line, ""));
        let mut words = line.split_whitespace();
        let offset = usize::from_str_radix(words.next().expect("an offset"), 16).unwrap();
        assert_eq!(offset, bytes.len(), "offsets count up: {line}");
        bytes.extend(words.map(|word| u8::from_str_radix(word, 16).unwrap()));
    }
    bytes
}

/// Bytes as an assertion can show them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
