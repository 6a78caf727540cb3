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

  /// What the server calls the command that it ran, such as `COMMIT` or `INSERT 0 1`.
  package var commandTag: String { String(cString: PQcmdStatus(result)) }

  /// The bytes of a value; nil for null, and outside the rows and columns there are. Valid only as long as this object,
  /// which Swift may release after its last use: keep it with `withExtendedLifetime`, or copy through ``bytea(_:_:)``.
  package func bytes(_ row: Int, _ column: Int) -> UnsafeRawBufferPointer? {
    let (row, column) = (Int32(clamping: row), Int32(clamping: column))
    guard PQgetisnull(result, row, column) == 0 else { return nil }
    return UnsafeRawBufferPointer(start: PQgetvalue(result, row, column), count: Int(PQgetlength(result, row, column)))
  }

  package func int64(_ row: Int, _ column: Int) throws(PostgresError) -> Int64? {
    guard let bytes = bytes(row, column) else { return nil }
    switch type(column) {
    case OID.int8 where bytes.count == 8: return Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
    case OID.int4 where bytes.count == 4: return Int64(Int32(bigEndian: bytes.loadUnaligned(as: Int32.self)))
    case OID.int2 where bytes.count == 2: return Int64(Int16(bigEndian: bytes.loadUnaligned(as: Int16.self)))
    default: throw mismatch(column, "an integer")
    }
  }

  package func double(_ row: Int, _ column: Int) throws(PostgresError) -> Double? {
    guard let bytes = bytes(row, column) else { return nil }
    switch type(column) {
    case OID.float8 where bytes.count == 8:
      return Double(bitPattern: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)))
    case OID.float4 where bytes.count == 4:
      return Double(Float(bitPattern: UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))))
    default: throw mismatch(column, "a float8")
    }
  }

  package func bool(_ row: Int, _ column: Int) throws(PostgresError) -> Bool? {
    guard let bytes = bytes(row, column) else { return nil }
    guard type(column) == OID.bool, bytes.count == 1 else { throw mismatch(column, "a boolean") }
    return bytes[0] != 0
  }

  /// Text of a type whose binary format is its text (text, varchar, name, json, enums…).
  package func text(_ row: Int, _ column: Int) throws(PostgresError) -> String? {
    guard let text = string(row, column) else { return nil }
    let type = type(column)
    guard PQfformat(result, Int32(clamping: column)) == 0 || OID.textLike.contains(type) || type >= OID.firstOfUsers
    else {
      throw mismatch(column, "text")
    }
    return text
  }

  /// The same unchecked: a value of another type gives its binary format, repaired to valid UTF-8.
  package func string(_ row: Int, _ column: Int) -> String? {
    bytes(row, column).map { String(decoding: $0, as: UTF8.self) }
  }

  package func bytea(_ row: Int, _ column: Int) throws(PostgresError) -> [UInt8]? {
    guard let bytes = bytes(row, column) else { return nil }
    guard type(column) == OID.bytea else { throw mismatch(column, "a bytea") }
    return Array(bytes)
  }

  package func uuid(_ row: Int, _ column: Int) throws(PostgresError) -> UUID? {
    guard let bytes = bytes(row, column) else { return nil }
    guard type(column) == OID.uuid, bytes.count == 16 else { throw mismatch(column, "a uuid") }
    return UUID(uuid: bytes.loadUnaligned(as: uuid_t.self))
  }

  package func timestamp(_ row: Int, _ column: Int) throws(PostgresError) -> Timestamp? {
    guard let bytes = bytes(row, column) else { return nil }
    guard type(column) == OID.timestamptz, bytes.count == 8 else {
      throw mismatch(column, "a timestamptz")
    }
    return Timestamp(microsecondsSince2000: Int64(bigEndian: bytes.loadUnaligned(as: Int64.self)))
  }

  /// The text of a jsonb value: its binary format is a version byte, 1, and the text. Valid as long as ``bytes(_:_:)`` says.
  package func json(_ row: Int, _ column: Int) throws(PostgresError) -> UnsafeRawBufferPointer? {
    guard let bytes = bytes(row, column) else { return nil }
    guard type(column) == OID.jsonb, bytes.first == 1 else { throw mismatch(column, "a jsonb") }
    return UnsafeRawBufferPointer(rebasing: bytes.dropFirst())
  }

  package func int64Array(_ row: Int, _ column: Int) throws(PostgresError) -> [Int64]? {
    guard let bytes = bytes(row, column) else { return nil }
    guard type(column) == OID.int8Array, bytes.count >= 12 else { throw mismatch(column, "a bigint[]") }
    func int32(_ at: Int) -> Int { Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: Int32.self))) }
    if int32(0) == 0 { return [] }
    guard int32(0) == 1, bytes.count >= 20, int32(12) >= 0, bytes.count == 20 + int32(12) * 12 else {
      throw mismatch(column, "a bigint[] of one dimension without nulls")
    }
    return (0..<int32(12)).map {
      Int64(bigEndian: bytes.loadUnaligned(fromByteOffset: 24 + $0 * 12, as: Int64.self))
    }
  }

  private func type(_ column: Int) -> UInt32 { PQftype(result, Int32(clamping: column)) }

  fileprivate func name(_ column: Int) -> String {
    PQfname(result, Int32(clamping: column)).map { String(cString: $0) } ?? "number \(column)"
  }

  private func mismatch(_ column: Int, _ expected: String) -> PostgresError {
    PostgresError(.decoding, message: "column \(name(column)) is not \(expected)")
  }
}

extension ResultSet {
  /// A value that the statement promises never to be null.
  package func required<Value>(_ value: Value?, _ column: Int) throws(PostgresError) -> Value {
    guard let value else { throw PostgresError(.decoding, message: "column \(name(column)) is null or not there") }
    return value
  }
}
