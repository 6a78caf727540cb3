/// OIDs of the types we send and read; fixed for ever in PostgreSQL's pg_type.dat.
enum OID {
  static let bool: UInt32 = 16
  static let bytea: UInt32 = 17
  static let int8: UInt32 = 20
  static let int2: UInt32 = 21
  static let int4: UInt32 = 23
  static let text: UInt32 = 25
  /// "char", name, text, json, xml, unknown, char(n), varchar, cstring.
  static let textLike: Set<UInt32> = [18, 19, 25, 114, 142, 705, 1042, 1043, 2275]
  /// Types made by users (enums, for one) have larger OIDs than those that PostgreSQL brings.
  static let firstOfUsers: UInt32 = 16_384
  static let float4: UInt32 = 700
  static let float8: UInt32 = 701
  static let int4Array: UInt32 = 1007
  static let textArray: UInt32 = 1009
  static let int8Array: UInt32 = 1016
  static let timestamptz: UInt32 = 1184
  static let timestamptzArray: UInt32 = 1185
  static let uuid: UInt32 = 2950
  static let uuidArray: UInt32 = 2951
  static let jsonb: UInt32 = 3802
}
