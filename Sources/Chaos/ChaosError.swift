/// Why a trial could not be run to its end: printed as it is.
package struct ChaosError: Error, CustomStringConvertible {
  package var description: String

  init(_ description: String) { self.description = description }
}

/// Why a fault cannot be made here: no failure, and no success either.
struct NotMeasured: Error {
  var reason: String
}

/// Polls until the condition holds; throws after `limit`.
func eventually(_ what: String, within limit: Duration, _ condition: () async throws -> Bool) async throws {
  let deadline = ContinuousClock.now + limit
  while try await !condition() {
    guard ContinuousClock.now < deadline else { throw ChaosError("not within \(limit): \(what)") }
    try await Task.sleep(for: .milliseconds(20))
  }
}
