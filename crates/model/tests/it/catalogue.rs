//! The catalogue against one that looks at every series.

use proptest::prelude::*;
use slung_model::{Catalogue, CatalogueFull, Query, SeriesId, SeriesKey};

use crate::query_generator::{Dice, dice, tag_list};

fn key(name: &str, tags: &[&str]) -> SeriesKey {
    SeriesKey::new(name, tags).expect("a valid key")
}

fn select(catalogue: &Catalogue, query: &str) -> Vec<u32> {
    catalogue.select(&Query::parse(query).expect(query)).into_iter().map(|id| id.0).collect()
}

#[test]
fn ids_are_dense_and_stay() {
    let mut catalogue = Catalogue::default();
    assert!(catalogue.is_empty());
    for index in 0..100u32 {
        let key = key("temp", &[&format!("sensor={index}")]);
        assert_eq!(catalogue.get(&key), None);
        assert_eq!(catalogue.insert(&key), Ok(SeriesId(index)));
        assert_eq!(catalogue.insert(&key), Ok(SeriesId(index)));
        assert_eq!(catalogue.get(&key), Some(SeriesId(index)));
        assert_eq!(**catalogue.key(SeriesId(index)).unwrap(), key);
        assert_eq!(catalogue.len(), index as usize + 1);
    }
    assert_eq!(catalogue.key(SeriesId(100)), None);
    assert_eq!(catalogue.key(SeriesId(u32::MAX)), None);
}

#[test]
fn takes_as_many_series_as_it_may() {
    let mut catalogue = Catalogue::with_series_max(2);
    assert_eq!(catalogue.insert(&key("a", &["x"])), Ok(SeriesId(0)));
    assert_eq!(catalogue.insert(&key("b", &["x"])), Ok(SeriesId(1)));
    let full = catalogue.insert(&key("c", &["x"])).unwrap_err();
    assert_eq!(full, CatalogueFull { series_max: 2 });
    assert_eq!(full.to_string(), "there are 2 series already, the most that are allowed");
    // Nothing of the one that was refused is left behind, and those that are there are still found.
    assert_eq!(catalogue.len(), 2);
    assert_eq!(catalogue.get(&key("c", &["x"])), None);
    assert_eq!(select(&catalogue, "a,b,c:[x]"), [0, 1]);
    assert_eq!(catalogue.insert(&key("a", &["x"])), Ok(SeriesId(0)));

    let mut none = Catalogue::with_series_max(0);
    assert_eq!(none.insert(&key("a", &[])), Err(CatalogueFull { series_max: 0 }));
}

#[test]
fn selects_by_name_and_tags() {
    let mut catalogue = Catalogue::default();
    for (name, tags) in [
        ("temp", &["sensor=1", "env=prod"][..]), // 0
        ("temp", &["sensor=2", "env=prod"]),     // 1
        ("load", &["sensor=1", "env=prod"]),     // 2
        ("temp", &["sensor=3", "env=test"]),     // 3
        ("temp", &[]),                           // 4
        ("load", &["env=test"]),                 // 5
    ] {
        catalogue.insert(&key(name, tags)).unwrap();
    }
    let rows: [(&str, &[u32]); 16] = [
        ("temp:[]", &[0, 1, 3, 4]),
        ("temp,load:[]", &[0, 1, 2, 3, 4, 5]),
        ("none:[]", &[]),
        ("none,load:[]", &[2, 5]),
        ("temp:[sensor=1]", &[0]),
        ("temp,load:[sensor=1]", &[0, 2]),
        ("temp:[sensor=9]", &[]),
        ("temp:[NOT sensor=9]", &[0, 1, 3, 4]),
        ("temp:[env=prod AND sensor=2]", &[1]),
        ("temp:[env=prod AND NOT sensor=2]", &[0]),
        ("temp:[NOT env=prod AND NOT env=test]", &[4]),
        ("temp:[sensor=3 OR sensor=1]", &[0, 3]),
        ("temp:[sensor=1 OR NOT env=prod]", &[0, 3, 4]),
        ("temp,load:[env=test OR sensor=1 AND env=prod]", &[0, 2]),
        ("temp,load:[env=test OR (sensor=1 AND env=prod)]", &[0, 2, 3, 5]),
        ("temp:[NOT (sensor=1 OR sensor=2)]", &[3, 4]),
    ];
    for (query, ids) in rows {
        assert_eq!(select(&catalogue, query), ids, "{query}");
    }
}

/// A catalogue of `count` series over few names and tags, so that lists of every length and overlap come about.
fn catalogue(dice: &mut Dice, count: usize) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for index in 0..count {
        let name = ["s", "t"][dice.roll(2)];
        let mut tags: Vec<&str> = Vec::new();
        for tag in crate::query_generator::TAGS {
            // The first tags are common, the last ones are rare.
            if dice.roll(2 + tags.len()) == 1 {
                tags.push(tag);
            }
        }
        let number = format!("n={index}");
        tags.push(&number);
        catalogue.insert(&key(name, &tags)).expect("there is no limit");
    }
    catalogue
}

proptest! {
    #[test]
    fn selects_what_the_query_matches(mut series in dice(4000), mut filter in dice(200), count in 0..300usize) {
        let catalogue = catalogue(&mut series, count);
        let (text, _) = tag_list(&mut filter);
        let query = Query::parse(&format!("s,t:[{text}]")).unwrap();
        let expected: Vec<SeriesId> = (0..catalogue.len() as u32)
            .map(SeriesId)
            .filter(|id| query.matches(catalogue.key(*id).unwrap()))
            .collect();
        prop_assert_eq!(catalogue.select(&query), expected);
    }
}

#[test]
fn a_series_that_is_renamed_is_found_by_its_new_key_alone() {
    let key = |name: &str, tag: &str| SeriesKey::new(name, [tag]).unwrap();
    let mut catalogue = Catalogue::default();
    let ids: Vec<SeriesId> = ["a", "b", "c"].iter().map(|tag| catalogue.insert(&key("temp", tag)).unwrap()).collect();
    assert!(!catalogue.rename(ids[1], &key("temp", "c")), "there is such a one");
    assert!(!catalogue.rename(SeriesId(9), &key("temp", "d")), "it was not given out");
    assert!(catalogue.rename(ids[0], &key("speed", "c")));
    let select = |query: &str| catalogue.select(&Query::parse(query).unwrap());
    assert_eq!(select("temp:[]"), [ids[1], ids[2]]);
    assert_eq!(select("temp:[a]"), []);
    assert_eq!(select("speed,temp:[c]"), [ids[0], ids[2]]);
    assert_eq!(catalogue.get(&key("temp", "a")), None);
    assert_eq!(catalogue.get(&key("speed", "c")), Some(ids[0]));
    assert_eq!(**catalogue.key(ids[0]).unwrap(), key("speed", "c"));
    assert_eq!(catalogue.len(), 3);
}
