import Foundation

@testable import EmbeddedPostgres

extension EmbeddedPostgres {
  /// What psql prints for a statement, without headings.
  func psql(_ statement: String, url: String? = nil) async throws -> String {
    try await EmbeddedPostgresTests.psql(statement, url: url ?? connectionString)
  }
}

func psql(_ statement: String, url: String) async throws -> String {
  try await withTemporaryDirectory { (directory) async throws in
    let tools = ToolRunner(directory: directory, user: nil)
    return try await tools.run(["psql", url, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement])
      .trimmingCharacters(in: .newlines)
  }
}

/// In /tmp itself and open to all, as the server's user must be able to enter it.
func withTemporaryDirectory<Result>(_ body: (URL) async throws -> Result) async throws -> Result {
  var path = Array("/tmp/mt-XXXXXX".utf8CString)
  guard mkdtemp(&path) != nil else { throw EmbeddedPostgresError.systemCall("mkdtemp", errno: errno) }
  let directory = URL(fileURLWithPath: String(decoding: path.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
  defer { try? FileManager.default.removeItem(at: directory) }
  chmod(directory.path, 0o755)
  return try await body(directory)
}

struct DeadlinePassed: Error { var waitingFor: String }

/// Polls until the condition holds; throws after the deadline.
func eventually(
  _ what: String,
  within limit: Duration = .seconds(60),
  _ condition: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + limit
  while try await !condition() {
    guard ContinuousClock.now < deadline else { throw DeadlinePassed(waitingFor: what) }
    try await Task.sleep(for: .milliseconds(10))
  }
}
