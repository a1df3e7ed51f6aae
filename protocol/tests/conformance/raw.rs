//! Tables built slot by slot, without the schema's generated code: what a peer of another version
//! or with other habits would send, and what no decent peer would.

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, TableFinishedWIPOffset, UnionWIPOffset, WIPOffset};
use throng_protocol::frame;

/// The value of one slot.
#[derive(Debug, Clone)]
pub enum Value {
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    Text(String),
    Numbers(Vec<u16>),
    Texts(Vec<String>),
    Tables(Vec<Table>),
}

/// Slots by their place in the schema; the rest are absent.
pub type Table = Vec<(u16, Value)>;

/// A text value.
pub fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

/// A frame whose payload is `table`.
pub fn framed(kind: u8, table: &Table) -> Bytes {
    frame::encode(kind, &payload(table))
}

/// A payload.
pub fn payload(table: &Table) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let root = build(&mut builder, table);
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

fn build<'a>(b: &mut FlatBufferBuilder<'a>, table: &Table) -> WIPOffset<TableFinishedWIPOffset> {
    let offsets: Vec<Option<WIPOffset<UnionWIPOffset>>> =
        table.iter().map(|(_, value)| offset(b, value)).collect();
    let start = b.start_table();
    for ((slot, value), offset) in table.iter().zip(offsets) {
        let at = 4 + 2 * slot;
        match (value, offset) {
            (_, Some(offset)) => b.push_slot_always(at, offset),
            (Value::U8(number), _) => b.push_slot_always(at, *number),
            (Value::U16(number), _) => b.push_slot_always(at, *number),
            (Value::U32(number), _) => b.push_slot_always(at, *number),
            (Value::U64(number), _) => b.push_slot_always(at, *number),
            _ => unreachable!("every other value has an offset"),
        }
    }
    b.end_table(start)
}

fn offset<'a>(b: &mut FlatBufferBuilder<'a>, value: &Value) -> Option<WIPOffset<UnionWIPOffset>> {
    Some(match value {
        Value::U8(_) | Value::U16(_) | Value::U32(_) | Value::U64(_) => return None,
        Value::Text(text) => b.create_string(text).as_union_value(),
        Value::Numbers(numbers) => b.create_vector(numbers).as_union_value(),
        Value::Texts(texts) => {
            let texts: Vec<_> = texts.iter().map(|text| b.create_string(text)).collect();
            b.create_vector(&texts).as_union_value()
        }
        Value::Tables(tables) => {
            let tables: Vec<_> = tables.iter().map(|table| build(b, table)).collect();
            b.create_vector(&tables).as_union_value()
        }
    })
}
