/// What one connection has prepared, and under which names.
///
/// A name is made from the statement's text and parameter types, so that behind a pooler a name never means another
/// statement than the one we think of.
struct PreparedStatements {
  struct Statement {
    let sql: String
    let types: [UInt32]
    let name: String
    fileprivate let index: Int
  }

  private struct Key: Hashable {
    let sql: String
    let types: [UInt32]
  }

  private enum State {
    case unknown
    case prepared
    /// The server has an old version under the name.
    case stale
  }

  /// The server keeps a plan of each in memory. Statements beyond are sent whole.
  static let limit = 256
  private var known: [Key: Statement] = [:]
  /// Of the statement with that index.
  private var states: [State] = []

  /// nil if there are too many already.
  mutating func statement(_ sql: String, _ types: [UInt32]) -> Statement? {
    let key = Key(sql: sql, types: types)
    if let statement = known[key] { return statement }
    guard states.count < Self.limit else { return nil }
    let name = "martlet_\(String(Self.hash(sql, types), radix: 16))"
    let statement = Statement(sql: sql, types: types, name: name, index: states.count)
    known[key] = statement
    states.append(.unknown)
    return statement
  }

  func isPrepared(_ statement: Statement) -> Bool { states[statement.index] == .prepared }

  func mustDeallocate(_ statement: Statement) -> Bool { states[statement.index] == .stale }

  mutating func prepared(_ statement: Statement) { states[statement.index] = .prepared }

  mutating func lose(_ statement: Statement, stillThere: Bool) {
    states[statement.index] = stillThere ? .stale : .unknown
  }

  /// FNV-1a, 64 bits: the same in every process, unlike `hashValue`. Should two ever meet in one name, the server
  /// refuses the second (42P05), which is then sent whole.
  private static func hash(_ sql: String, _ types: [UInt32]) -> UInt64 {
    func add(_ hash: UInt64, _ byte: UInt64) -> UInt64 { (hash ^ byte) &* 0x100_0000_01b3 }
    let text = sql.utf8.reduce(0xcbf2_9ce4_8422_2325) { add($0, UInt64($1)) }
    return types.reduce(text) { add($0, UInt64($1)) }
  }
}
