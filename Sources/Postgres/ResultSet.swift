import CLibPQ
import Foundation

/// The rows of one statement, in binary format, as libpq holds them. Values are read in place.
///
/// Reading a value as another type than the statement returns throws ``PostgresError`` of kind `decoding`; it never traps.
package final class ResultSet {
  private let result: OpaquePointer
  package let count: Int

  /// Takes ownership of `result`.
  init(_ result: OpaquePointer) {
    self.result = result
    self.count = Int(PQntuples(result))
  }

  deinit { PQclear(result) }

  package var columns: [String] {
    (0..<PQnfields(result)).map { String(cString: PQfname(result, $0)) }
  }

  /// Rows that an INSERT, UPDATE or DELETE touched.
  package var affectedRows: Int { Int(String(cString: PQcmdTuples(result))) ?? 0 }

  /// The bytes of a value, valid as long as this object is; nil for null.
  package func bytes(_ row: Int, _ column: Int) -> UnsafeRawBufferPointer? {
    guard PQgetisnull(result, Int32(row), Int32(column)) == 0 else { return nil }
    let length = Int(PQgetlength(result, Int32(row), Int32(column)))
    return UnsafeRawBufferPointer(start: PQgetvalue(result, Int32(row), Int32(column)), count: length)
  }

  package func int64(_ row: Int, _ column: Int) throws(PostgresError) -> Int64? {
    guard let bytes = bytes(row, column) else { return nil }
    switch PQftype(result, Int32(column)) {
    case OID.int8 where bytes.count == 8: return Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
    case OID.int4 where bytes.count == 4: return Int64(Int32(bigEndian: bytes.loadUnaligned(as: Int32.self)))
    case OID.int2 where bytes.count == 2: return Int64(Int16(bigEndian: bytes.loadUnaligned(as: Int16.self)))
    default: throw mismatch(column, "an integer")
    }
  }

  package func double(_ row: Int, _ column: Int) throws(PostgresError) -> Double? {
    guard let bytes = bytes(row, column) else { return nil }
    guard PQftype(result, Int32(column)) == OID.float8, bytes.count == 8 else { throw mismatch(column, "a float8") }
    return Double(bitPattern: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)))
  }

  package func bool(_ row: Int, _ column: Int) throws(PostgresError) -> Bool? {
    guard let bytes = bytes(row, column) else { return nil }
    guard PQftype(result, Int32(column)) == OID.bool, bytes.count == 1 else { throw mismatch(column, "a boolean") }
    return bytes[0] != 0
  }

  /// Text of any type whose binary format is its text (text, varchar, name, json, enums…).
  package func string(_ row: Int, _ column: Int) -> String? {
    bytes(row, column).map { String(decoding: $0, as: UTF8.self) }
  }

  package func uuid(_ row: Int, _ column: Int) throws(PostgresError) -> UUID? {
    guard let bytes = bytes(row, column) else { return nil }
    guard PQftype(result, Int32(column)) == OID.uuid, bytes.count == 16 else { throw mismatch(column, "a uuid") }
    return UUID(uuid: bytes.loadUnaligned(as: uuid_t.self))
  }

  package func timestamp(_ row: Int, _ column: Int) throws(PostgresError) -> Timestamp? {
    guard let bytes = bytes(row, column) else { return nil }
    guard PQftype(result, Int32(column)) == OID.timestamptz, bytes.count == 8 else {
      throw mismatch(column, "a timestamptz")
    }
    return Timestamp(microsecondsSince2000: Int64(bigEndian: bytes.loadUnaligned(as: Int64.self)))
  }

  /// The text of a jsonb value: its binary format is a version byte, 1, and the text.
  package func json(_ row: Int, _ column: Int) throws(PostgresError) -> UnsafeRawBufferPointer? {
    guard let bytes = bytes(row, column) else { return nil }
    guard PQftype(result, Int32(column)) == OID.jsonb, bytes.first == 1 else { throw mismatch(column, "a jsonb") }
    return UnsafeRawBufferPointer(rebasing: bytes.dropFirst())
  }

  package func int64Array(_ row: Int, _ column: Int) throws(PostgresError) -> [Int64]? {
    guard let bytes = bytes(row, column) else { return nil }
    guard PQftype(result, Int32(column)) == OID.int8Array, bytes.count >= 12 else {
      throw mismatch(column, "a bigint[]")
    }
    func int32(_ at: Int) -> Int { Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: Int32.self))) }
    guard int32(0) == 1 else { return [] }
    guard bytes.count >= 20, int32(12) >= 0, bytes.count == 20 + int32(12) * 12 else {
      throw mismatch(column, "a bigint[] without nulls")
    }
    return (0..<int32(12)).map {
      Int64(bigEndian: bytes.loadUnaligned(fromByteOffset: 24 + $0 * 12, as: Int64.self))
    }
  }

  private func mismatch(_ column: Int, _ expected: String) -> PostgresError {
    PostgresError(
      .decoding,
      message: "column \(columns.indices.contains(column) ? columns[column] : "number \(column)") is not \(expected)"
    )
  }
}

extension ResultSet {
  /// A value that the statement promises never to be null.
  package func required<Value>(_ value: Value?, _ column: Int) throws(PostgresError) -> Value {
    guard let value else { throw PostgresError(.decoding, message: "column \(columns[column]) is null") }
    return value
  }
}
