//! Any value of a type that serde can read, made from bytes: the type itself says which fields and variants it has.
//!
//!   bytes ─`Choices`─▶ `Arbitrary`, a deserializer without a document ─▶ T
//!
//! Each byte is one choice: whether an option is there, how long a list is, which variant, which number. When the bytes are
//! used up, options are absent and lists are empty, so every value ends.

use serde::{
    Deserializer,
    de::{
        self, DeserializeSeed, IntoDeserializer as _, Visitor,
        value::{Error, StrDeserializer},
    },
    forward_to_deserialize_any,
};

/// The most entries of a list or a map.
const LIST: usize = 3;

pub(super) struct Choices<'b>(pub(super) std::slice::Iter<'b, u8>);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    /// Below `count`, which is not 0.
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// A number of either sign: small ones, and those at the ends of all integer types.
    fn number(&mut self) -> i128 {
        const ENDS: [i128; 9] = [
            i8::MAX as i128,
            u8::MAX as i128,
            u16::MAX as i128,
            i32::MAX as i128,
            u32::MAX as i128,
            i64::MAX as i128,
            u64::MAX as i128,
            i32::MIN as i128,
            i64::MIN as i128,
        ];
        let byte = self.byte();
        ENDS.get(usize::from(byte).wrapping_sub(100)).copied().unwrap_or(i128::from(byte.cast_signed()))
    }
}

pub(super) struct Arbitrary<'c, 'b> {
    choices: &'c mut Choices<'b>,
    /// The field that the value is for, or whose list it is in: some fields take only words of their own.
    field: &'static str,
}

impl<'c, 'b> Arbitrary<'c, 'b> {
    pub(super) fn new(choices: &'c mut Choices<'b>) -> Self {
        Self { choices, field: "" }
    }

    fn text(&mut self) -> &'static str {
        let words: &[&'static str] = match self.field {
            "bounding" | "effective" | "inheritable" | "permitted" | "ambient" => {
                &["CAP_KILL", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]
            }
            "initial" | "final" => &["0-3", "7", "1,3-5"],
            _ => &["", "web", "/a/b", "0-3", "a:b=c, d", "wéb\u{1b}\n", "null"],
        };
        let index = self.choices.below(words.len());
        words[index]
    }
}

macro_rules! numbers {
    ($($method:ident $type:ident $visit:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.choices.number();
            visitor.$visit(number.clamp($type::MIN.into(), $type::MAX.into()) as $type)
        }
    )*};
}

impl<'de> Deserializer<'de> for Arbitrary<'_, '_> {
    type Error = Error;

    numbers!(
        deserialize_i32 i32 visit_i32,
        deserialize_i64 i64 visit_i64,
        deserialize_u8 u8 visit_u8,
        deserialize_u16 u16 visit_u16,
        deserialize_u32 u32 visit_u32,
        deserialize_u64 u64 visit_u64
    );

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.choices.below(2) == 1)
    }

    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        // More often there than not: most fields are options within options.
        if self.choices.below(4) > 0 { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.choices.below(LIST + 1);
        visitor.visit_seq(Entries { left, field: self.field, choices: self.choices })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.choices.below(LIST + 1);
        visitor.visit_map(Entries { left, field: self.field, choices: self.choices })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { fields: fields.iter(), field: "", choices: self.choices })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant: StrDeserializer<'_, Error> =
            variants[self.choices.below(variants.len())].into_deserializer();
        visitor.visit_enum(variant)
    }

    /// For a value of any kind, such as `serde_json::Value`: some text.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// All fields of a struct, each once.
struct Fields<'c, 'b> {
    fields: std::slice::Iter<'static, &'static str>,
    field: &'static str,
    choices: &'c mut Choices<'b>,
}

impl<'de> de::MapAccess<'de> for Fields<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(field) = self.fields.next() else { return Ok(None) };
        self.field = field;
        let name: StrDeserializer<'_, Error> = field.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Arbitrary { choices: self.choices, field: self.field })
    }
}

/// Entries of a list, or of a map whose keys are words.
struct Entries<'c, 'b> {
    left: usize,
    field: &'static str,
    choices: &'c mut Choices<'b>,
}

impl<'de> de::SeqAccess<'de> for Entries<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(Arbitrary { choices: self.choices, field: self.field }).map(Some)
    }
}

impl<'de> de::MapAccess<'de> for Entries<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        const KEYS: [&str; LIST] = ["boottime", "org.example.key", "net.ipv4.ip_forward"];
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let key: StrDeserializer<'_, Error> = KEYS[left].into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Arbitrary { choices: self.choices, field: self.field })
    }
}
