import Postgres

struct Disagreement: Error, CustomStringConvertible {
  var what: String
  var postgres: String
  var model: String
  var description: String { "\(what)\n  PostgreSQL: \(postgres)\n  the model:  \(model)" }
}

/// Of what a call returned, or of how it failed.
extension Pairing {
  func outcome<Value>(_ body: () throws(PostgresError) -> Value) -> Result<Value, PostgresError> {
    do { return .success(try body()) } catch { return .failure(error) }
  }

  func agree<Value: Equatable>(_ what: String, _ real: Value, _ expected: Value) throws {
    if real != expected { throw Disagreement(what: what, postgres: "\(real)", model: "\(expected)") }
  }

  func agree<Value: Equatable>(
    _ what: String,
    _ real: Result<Value, PostgresError>,
    _ expected: Result<Value, PostgresError>
  ) throws {
    switch (real, expected) {
    case (.success(let real), .success(let expected)): try agree(what, real, expected)
    case (.failure(let real), .failure(let expected)): try agree(what, real.sqlState, expected.sqlState)
    case (.failure(let error), .success(let expected)):
      throw Disagreement(what: what, postgres: "\(error)", model: "\(expected)")
    case (.success(let real), .failure(let error)):
      throw Disagreement(what: what, postgres: "\(real)", model: error.sqlState)
    }
  }
}
