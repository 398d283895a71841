//! How definitions are spelled and encoded, and what is refused.

use proptest::prelude::*;

use super::*;

const NONE: [(&str, &str); 0] = [];

#[test]
fn a_definition_is_spelled_by_type_and_properties() {
    let definition =
        Definition::parse("JSON", &[("retain", "false"), ("conflate", "always"), ("priority", "high"), ("durability", "mesh(2)")]).unwrap();
    assert_eq!(definition.topic_type(), &TopicType::Json);
    assert_eq!(
        definition.properties(),
        &Properties {
            retain: false,
            conflate: Conflate::Always,
            priority: Priority::High,
            durability: Some(Durability::Mesh(2)),
            ..Properties::default()
        }
    );
    assert_eq!(Definition::parse("json", &definition.explicit_properties()), Ok(definition));
    assert_eq!(Definition::parse("string", &NONE).unwrap().explicit_properties(), []);
}

#[test]
fn refusals_say_what_was_wrong_and_what_would_be_right() {
    let message = |topic_type, properties: &[(&str, &str)]| Definition::parse(topic_type, properties).unwrap_err().to_string();
    assert_eq!(
        message("jsn", &[]),
        "unknown topic type \"jsn\", did you mean \"json\"?; there are json, binary, string, int64, double, stateless, paged, decimal, record, protobuf, custom, slave, timeseries"
    );
    assert!(message("quaternion", &[]).starts_with("unknown topic type \"quaternion\"; there are"));
    assert!(message("json", &[("retian", "true")]).contains("did you mean \"retain\"?"));
    assert_eq!(message("json", &[("retain", "yes")]), "retain is true or false, not \"yes\"");
    assert_eq!(message("json", &[("conflate", "maybe")]), "conflate is off, on or always, not \"maybe\"");
    assert_eq!(message("json", &[("owner", "")]), "owner is a text of 1 to 1024 bytes, without control characters, not \"\"");
    assert!(message("json", &[("removal", &"x".repeat(1_025))]).starts_with("removal is a text of 1 to 1024 bytes"));
    assert_eq!(message("json", &[("retain", "true"), ("retain", "true")]), "property retain is given twice");
    for durability in ["mesh", "mesh()", "mesh(0)", "mesh(65)", "mesh(-1)", "tape"] {
        assert!(message("json", &[("durability", durability)]).starts_with("durability is memory, disk or mesh(k)"));
    }
}

#[test]
fn defaults_take_no_room_and_the_bytes_are_fixed_for_ever() {
    let plain = Definition::new(TopicType::Json, Properties::default());
    assert_eq!(plain.to_bytes(), [0xa1, 0, 0]);
    let spelled_out = Definition::parse("json", &[("retain", "true"), ("deltas", "true")]).unwrap();
    assert_eq!(spelled_out.hash(), plain.hash());
    let everything = Definition::new(
        TopicType::Double,
        Properties {
            retain: false,
            conflate: Conflate::Off,
            compress: false,
            priority: Priority::High,
            deltas: false,
            durability: Some(Durability::Mesh(3)),
        },
    );
    assert_eq!(everything.to_bytes(), [0xa7, 0, 4, 1, 0xf4, 2, 0, 3, 0xf4, 4, 2, 5, 0xf4, 6, 4]);
}

#[test]
fn other_spellings_of_a_definition_are_refused() {
    let refused = |bytes: &[u8]| Definition::from_bytes(bytes).unwrap_err();
    assert_eq!(refused(&[0xa1, 0, 0x18, 0]), DefinitionError::Malformed, "a longer number");
    assert_eq!(refused(&[0xa2, 0, 0, 1, 0xf5]), DefinitionError::Malformed, "a default spelled out");
    assert_eq!(refused(&[0xa2, 1, 0xf4, 0, 0]), DefinitionError::Malformed, "fields out of order");
    assert_eq!(refused(&[0xa1, 0, 0, 0]), DefinitionError::Malformed, "something after it");
    assert_eq!(refused(&[0xbf, 0, 0, 0xff]), DefinitionError::Malformed, "an open-ended map");
    assert_eq!(refused(&[0xa0]), DefinitionError::Malformed, "no type");
    assert_eq!(refused(&[0xbb, 255, 255, 255, 255, 255, 255, 255, 255, 0]), DefinitionError::Malformed);
    assert_eq!(refused(&vec![0; DEFINITION_BYTES_MAX + 1]), DefinitionError::TooLong(DEFINITION_BYTES_MAX + 1));
    assert_eq!(refused(&[]), DefinitionError::Malformed);
}

#[test]
fn what_a_newer_version_says_is_carried_as_it_is() {
    let schema = [0x4a, 0xa1, 0x67, b'r', b'e', b'c', b'o', b'r', b'd', b's', 0x80];
    let cases: [(&[u8], u64); 10] = [
        (&[0xa1, 0, 19], 19),
        (&[0xa1, 0, 0x1b, 255, 255, 255, 255, 255, 255, 255, 255], u64::MAX),
        (&[0xa2, 0, 0, 12, 0x81, 0xa1, 0, 0], 0),
        (&[0xa2, 0, 7, 11, 0x62, b'/', b'a'], 7),
        (&[0xa3, 0, 4, 1, 0xf4, 0x18, 200, 0xf6], 4),
        (&[0xa2, 0, 0, 2, 9], 0),
        (&[0xa2, 0, 0, 6, 0x18, 255], 0),
        (&[0xa1, 0, 5], 5),
        (&[0xa2, 0, 0, 9, 2], 0),
        (&[&[0xa2, 0, 6, 10][..], &schema].concat(), 6),
    ];
    for (bytes, code) in cases {
        let carried = Definition::from_bytes(bytes).unwrap_or_else(|error| panic!("{bytes:x?}: {error}"));
        assert_eq!((carried.topic_type(), carried.to_bytes()), (&TopicType::Unknown(code), bytes.to_vec()));
    }
    let carried = Definition::from_bytes(&[0xa3, 0, 19, 1, 0xf4, 8, 0x61, b'x']).unwrap();
    assert_eq!((carried.properties().retain, carried.removal()), (false, Some("x")), "as far as it can be made out");
    assert_eq!(carried.topic_type().to_string(), "unknown(19)");
    assert!(Definition::parse("unknown(19)", &NONE).is_err());
}

#[test]
fn an_older_version_carries_what_this_one_knows() {
    let definition = Definition::parse("decimal", &[("scale", "2"), ("retain", "false")]).unwrap();
    crate::sabotage::hide_types(Some(&["decimal".to_owned()].into()));
    let carried = Definition::from_bytes(&definition.to_bytes()).unwrap();
    let refused = Definition::parse("decimal", &[("scale", "2")]).unwrap_err().to_string();
    let known = Definition::from_bytes(&[0xa1, 0, 0]).unwrap();
    crate::sabotage::hide_types(None);
    assert_eq!((carried.topic_type(), known.topic_type()), (&TopicType::Unknown(5), &TopicType::Json));
    assert!(refused.contains("unknown topic type \"decimal\""), "{refused}");
    assert_eq!(Definition::from_bytes(&carried.to_bytes()), Ok(definition));
}

#[test]
fn types_with_parameters_need_them_and_others_have_none() {
    let schema = r#"{"records": [{"fields": [{"type": "string", "name": "f"}], "name": "r"}]}"#;
    let spelled = |topic_type, properties: &[(&str, &str)]| {
        let definition = Definition::parse(topic_type, properties).unwrap_or_else(|error| panic!("{topic_type}: {error}"));
        assert_eq!(Definition::from_bytes(&definition.to_bytes()), Ok(definition.clone()));
        assert_eq!(Definition::parse(topic_type, &definition.explicit_properties()), Ok(definition.clone()));
        definition
    };
    assert_eq!(spelled("decimal", &[("scale", "2")]).to_bytes(), [0xa2, 0, 5, 9, 2]);
    let record = spelled("record", &[("schema", schema), ("retain", "false")]);
    let again = schema.replace(r#""type": "string", "name": "f""#, r#""name":"f","type":"string""#);
    assert_eq!(spelled("Record", &[("schema", &again), ("retain", "false")]).hash(), record.hash());
    let message = |topic_type, properties: &[(&str, &str)]| Definition::parse(topic_type, properties).unwrap_err().to_string();
    assert_eq!(message("decimal", &[]), "a topic of type decimal needs the property scale");
    assert_eq!(message("decimal", &[("scale", "19")]), "scale is a number from 0 to 18, not \"19\"");
    let gate = spelled("json", &[("schema", r#"{"type": "object", "required": ["at"]}"#)]);
    assert!(matches!(gate.topic_type(), TopicType::JsonAs(_)));
    assert_ne!(gate.hash(), spelled("json", &[]).hash());
    assert!(message("json", &[("schema", r#"{"type": "text"}"#)]).starts_with("no schema: at \"/type\""));
    assert_eq!(message("string", &[("schema", "{}")]), "a topic of type string has no property schema");
    assert_eq!(message("json", &[("scale", "2")]), "a topic of type json has no property scale");
    assert_eq!(message("decimal", &[("scale", "2"), ("schema", schema)]), "a topic of type decimal has no property schema");
    assert_eq!(spelled("slave", &[("master", "a/b")]).to_bytes(), [0xa2, 0, 7, 11, 0x63, b'a', b'/', b'b']);
    assert_eq!(message("slave", &[]), "a topic of type slave needs the property master");
    assert!(message("slave", &[("master", "a//b")]).starts_with("master is the path of another topic"));
    assert_eq!(message("record", &[]), "a topic of type record needs the property schema");
    assert!(message("record", &[("schema", "{")]).starts_with("no schema: EOF"));
    assert!(message("record", &[("schema", "{}")]).contains("missing field `records`"));
    let named = |length: usize| schema.replace("\"f\"", &format!("{:?}", "f".repeat(length)));
    let longest = (3_900..4_096).rev().find(|length| Definition::parse("record", &[("schema", named(*length))]).is_ok());
    let longest = spelled("record", &[("schema", &named(longest.expect("one of these fits")))]);
    assert!(matches!(longest.with_removal("this session closes"), Err(DefinitionError::TooLong(_))), "what is said later counts, too");
    let long = schema.replace("\"f\"", &format!("\"{}\"", "f".repeat(5_000)));
    assert!(message("record", &[("schema", &long)]).contains("at most 4096 bytes"));
}

#[test]
fn blobs_are_named_by_the_same_field_in_every_type() {
    let [one, other] = [1, 2].map(|byte| BlobHash([byte; 32]));
    let spelled = Definition::parse("json", &[("schema", format!("blob:{one}"))]).expect("a definition");
    let bytes = [&[0xa2, 0, 0, 12, 0x58, 32][..], &one.0].concat();
    assert_eq!((spelled.to_bytes(), spelled.blobs()), (bytes.clone(), &[one][..]));
    assert_eq!(Definition::from_bytes(&bytes).as_ref(), Ok(&spelled));
    assert_eq!(Definition::parse("json", &spelled.explicit_properties()), Ok(spelled));
    assert!(Definition::parse("json", &[("retain", "false")]).expect("a definition").blobs().is_empty());
    // Of a type, or with fields, from the future.
    for head in [&[0xa3, 0, 19, 1, 0xf4, 12, 0x58, 64][..], &[0xa2, 0, 0, 12, 0x58, 64], &[0xa3, 0, 0, 9, 2, 12, 0x58, 64]] {
        let bytes = [head, &one.0, &other.0].concat();
        let carried = Definition::from_bytes(&bytes).expect("it is carried");
        assert!(matches!(carried.topic_type(), TopicType::Unknown(0 | 19)), "{head:x?}");
        assert_eq!((carried.blobs(), carried.to_bytes()), (&[one, other][..], bytes));
    }
    // What does not say which blobs names none, and is carried like anything else that is not understood.
    for named in [vec![], one.0[..31].to_vec(), [one.0, one.0].concat(), vec![7; 32 * (NAMED_MAX + 1)]] {
        let mut bytes = vec![0xa2, 0, 0, 12];
        minicbor::encode(minicbor::bytes::ByteVec::from(named), &mut bytes).expect("encoding to memory");
        let carried = Definition::from_bytes(&bytes).expect("it is carried");
        assert_eq!((carried.topic_type(), carried.blobs()), (&TopicType::Unknown(0), &[][..]));
    }
    let message = |topic_type, schema: &str| Definition::parse(topic_type, &[("schema", schema)]).unwrap_err().to_string();
    assert_eq!(message("json", "blob:12"), "no schema: a blob is named by 64 hexadecimal digits");
    assert_eq!(message("string", &format!("blob:{one}")), "a topic of type string has no property schema");
    assert_eq!(message("record", &format!("blob:{one}")), "no schema: that of a record stands in its definition");
}

#[test]
fn protobuf_and_custom_types_are_told_by_their_blobs() {
    let blob = BlobHash([7; 32]);
    let hash = format!("blob:{blob}");
    let spelled = |topic_type, properties: &[(&str, &str)]| {
        let definition = Definition::parse(topic_type, properties).unwrap_or_else(|error| panic!("{topic_type}: {error}"));
        assert_eq!(Definition::from_bytes(&definition.to_bytes()), Ok(definition.clone()));
        assert_eq!(Definition::parse(topic_type, &definition.explicit_properties()), Ok(definition.clone()));
        assert_eq!(definition.blobs(), [blob]);
        definition
    };
    let named = [&[12, 0x58, 32][..], &blob.0].concat();
    let custom = spelled("custom", &[("module", &hash)]);
    assert_eq!(custom.to_bytes(), [&[0xa2, 0, 11][..], &named].concat());
    let reading = spelled("protobuf", &[("message", "a.B"), ("descriptors", &hash)]);
    assert_eq!(reading.to_bytes(), [&[0xa3, 0, 10][..], &named, &[16, 0x63, b'a', b'.', b'B']].concat());
    assert_ne!(reading.hash(), spelled("protobuf", &[("message", "a.C"), ("descriptors", &hash)]).hash());
    let series = spelled("timeseries", &[("of", "protobuf"), ("message", "a.B"), ("descriptors", &hash)]);
    assert_eq!(series.topic_type().value_type(), reading.topic_type());
    assert_eq!(spelled("timeseries", &[("of", "custom"), ("module", &hash)]).topic_type().value_type(), custom.topic_type());
    let message = |topic_type, properties: &[(&str, &str)]| Definition::parse(topic_type, properties).unwrap_err().to_string();
    assert_eq!(message("custom", &[]), "a topic of type custom needs the property module");
    assert_eq!(message("protobuf", &[("message", "a.B")]), "a topic of type protobuf needs the property descriptors");
    assert_eq!(message("protobuf", &[("descriptors", &hash)]), "a topic of type protobuf needs the property message");
    assert_eq!(message("json", &[("module", &hash)]), "a topic of type json has no property module");
    assert_eq!(message("custom", &[("module", &hash), ("message", "B")]), "a topic of type custom has no property message");
    assert_eq!(message("custom", &[("module", &hash), ("schema", &hash)]), "a topic of type custom has no property schema");
    assert!(message("custom", &[("module", "blob:12")]).starts_with("module is a blob: blob: and 64 hexadecimal digits, not"));
    for name in ["", ".B", "a..B", "a B", "1a", &"x".repeat(crate::protobuf::NAME_BYTES_MAX + 1)] {
        assert!(message("protobuf", &[("descriptors", &hash), ("message", name)]).starts_with("message is a message's whole name"));
    }
    // What no version spells like this is carried.
    for bytes in [[&[0xa2, 0, 10][..], &named].concat(), [&[0xa3, 0, 11][..], &named, &[16, 0x61, b'B']].concat()] {
        let carried = Definition::from_bytes(&bytes).expect("it is carried");
        assert!(matches!(carried.topic_type(), TopicType::Unknown(10 | 11)) && carried.blobs() == [blob]);
    }
}

prop_compose! {
    fn definitions()(
        topic_type in prop_oneof![prop::sample::select(TopicType::PLAIN.to_vec()), (0..=SCALE_MAX).prop_map(TopicType::Decimal)],
        retain: bool,
        compress: bool,
        deltas: bool,
        conflate in prop::sample::select(vec![Conflate::Off, Conflate::On, Conflate::Always]),
        priority in prop::sample::select(vec![Priority::Low, Priority::Normal, Priority::High]),
        durability in prop::option::of((0..=1 + u64::from(MESH_COPIES_MAX)).prop_map(|disks| Durability::from_disks(disks).unwrap())),
    ) -> Definition {
        Definition::new(topic_type, Properties { retain, conflate, compress, priority, deltas, durability })
    }
}

proptest! {
    #[test]
    fn definitions_survive_their_bytes_and_their_text(definition in definitions()) {
        prop_assert_eq!(Definition::from_bytes(&definition.to_bytes()), Ok(definition.clone()));
        let parsed = Definition::parse(definition.topic_type().name(), &definition.explicit_properties());
        prop_assert_eq!(parsed, Ok(definition));
    }

    #[test]
    fn equal_hashes_mean_equal_definitions(one in definitions(), other in definitions()) {
        prop_assert_eq!(one.hash() == other.hash(), one == other);
    }

    #[test]
    fn any_bytes_decode_to_what_encodes_to_them_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        if let Ok(definition) = Definition::from_bytes(&bytes) {
            prop_assert_eq!(definition.to_bytes(), bytes);
        }
    }
}
