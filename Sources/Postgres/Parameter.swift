import Foundation

/// A value bound to `$n`, in PostgreSQL's binary format with its type's OID, so that nothing is quoted or parsed as text.
package struct Parameter: Sendable {
  let type: UInt32
  let bytes: [UInt8]?

  private init(_ type: UInt32, _ bytes: [UInt8]?) {
    self.type = type
    self.bytes = bytes
  }

  package static func bool(_ value: Bool?) -> Parameter { Parameter(OID.bool, value.map { [$0 ? 1 : 0] }) }
  package static func int4(_ value: Int32?) -> Parameter { Parameter(OID.int4, value.map(bigEndian)) }
  package static func int8(_ value: Int64?) -> Parameter { Parameter(OID.int8, value.map(bigEndian)) }
  package static func float8(_ value: Double?) -> Parameter {
    Parameter(OID.float8, value.map { bigEndian($0.bitPattern) })
  }
  package static func text(_ value: String?) -> Parameter { Parameter(OID.text, value.map { Array($0.utf8) }) }
  package static func bytea(_ value: [UInt8]?) -> Parameter { Parameter(OID.bytea, value) }
  package static func uuid(_ value: UUID?) -> Parameter { Parameter(OID.uuid, value.map(uuidBytes)) }
  /// `text` is JSON; the server validates it.
  package static func jsonb(_ text: String?) -> Parameter {
    Parameter(OID.jsonb, text.map { [1] + Array($0.utf8) })
  }
  package static func timestamp(_ value: Timestamp?) -> Parameter {
    Parameter(OID.timestamptz, value.map { bigEndian($0.microsecondsSince2000) })
  }

  package static func int4Array(_ values: [Int32?]) -> Parameter {
    array(OID.int4Array, of: OID.int4, values, sizeHint: 8) { append($0, to: &$1) }
  }
  package static func int8Array(_ values: [Int64?]) -> Parameter {
    array(OID.int8Array, of: OID.int8, values, sizeHint: 12) { append($0, to: &$1) }
  }
  package static func textArray(_ values: [String?]) -> Parameter {
    array(OID.textArray, of: OID.text, values, sizeHint: 20) { $1.append(contentsOf: $0.utf8) }
  }
  package static func uuidArray(_ values: [UUID]) -> Parameter {
    array(OID.uuidArray, of: OID.uuid, values, sizeHint: 20) { value, bytes in
      withUnsafeBytes(of: value.uuid) { bytes.append(contentsOf: $0) }
    }
  }
  package static func timestampArray(_ values: [Timestamp?]) -> Parameter {
    array(OID.timestamptzArray, of: OID.timestamptz, values, sizeHint: 12) { append($0.microsecondsSince2000, to: &$1) }
  }

  /// The binary format of a one-dimensional array: dimensions, has-nulls, element type, length, lower bound, then each
  /// element with its length, −1 for null. Source: `array_recv` in PostgreSQL's arrayfuncs.c.
  private static func array<Element>(
    _ type: UInt32,
    of elementType: UInt32,
    _ values: [Element?],
    sizeHint: Int,
    _ write: (Element, inout [UInt8]) -> Void
  ) -> Parameter {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(20 + values.count * sizeHint)
    append(Int32(values.isEmpty ? 0 : 1), to: &bytes)
    append(Int32(1), to: &bytes)
    append(elementType, to: &bytes)
    guard !values.isEmpty else { return Parameter(type, bytes) }
    append(Int32(values.count), to: &bytes)
    append(Int32(1), to: &bytes)
    for value in values {
      guard let value else {
        append(Int32(-1), to: &bytes)
        continue
      }
      let lengthAt = bytes.count
      append(Int32(0), to: &bytes)
      write(value, &bytes)
      let length = UInt32(bytes.count - lengthAt - 4)
      for i in 0..<4 { bytes[lengthAt + i] = UInt8(truncatingIfNeeded: length >> UInt32(24 - 8 * i)) }
    }
    return Parameter(type, bytes)
  }

  private static func append<T: FixedWidthInteger>(_ value: T, to bytes: inout [UInt8]) {
    withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
  }
  private static func bigEndian<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value.bigEndian) { Array($0) }
  }
  private static func uuidBytes(_ value: UUID) -> [UInt8] { withUnsafeBytes(of: value.uuid) { Array($0) } }
}
