import Foundation

/// Where PostgreSQL's programs are.
struct PostgresBinaries: Sendable {
  let directory: String

  var postgres: String { directory + "/postgres" }
  var initdb: String { directory + "/initdb" }

  /// A client program: from the same place, or whichever is in PATH, as any version of it will do.
  func client(_ name: String) -> String {
    let own = directory + "/" + name
    return FileManager.default.isExecutableFile(atPath: own) ? own : name
  }

  /// An explicit choice that holds no server is an error; it does not fall back to another version.
  static func locate(
    explicit: String?,
    environment: [String: String] = ProcessInfo.processInfo.environment,
    tools: ToolRunner
  ) async throws -> PostgresBinaries {
    if let chosen = explicit ?? environment["MARTLET_PG_BIN"].flatMap({ $0.isEmpty ? nil : $0 }) {
      guard holdsServer(chosen) else { throw EmbeddedPostgresError.binariesNotFound(searched: [chosen]) }
      return PostgresBinaries(directory: chosen)
    }
    var candidates: [String] = []
    // No pg_config is no error: it comes with the development files, which a server does not need.
    if let output = try? await tools.run(["pg_config", "--bindir"]) {
      candidates.append(output.trimmingCharacters(in: .whitespacesAndNewlines))
    }
    candidates += debianDirectories()
    candidates += (environment["PATH"] ?? "").split(separator: ":").map(String.init)
    guard let found = candidates.first(where: holdsServer) else {
      throw EmbeddedPostgresError.binariesNotFound(searched: candidates)
    }
    return PostgresBinaries(directory: found)
  }

  /// Debian and Ubuntu keep one directory a major version; the newest first.
  private static func debianDirectories() -> [String] {
    let root = "/usr/lib/postgresql"
    let versions = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
    return versions.compactMap(Int.init).sorted(by: >).map { "\(root)/\($0)/bin" }
  }

  private static func holdsServer(_ directory: String) -> Bool {
    ["postgres", "initdb"].allSatisfy { FileManager.default.isExecutableFile(atPath: "\(directory)/\($0)") }
  }

  /// `postgres (PostgreSQL) 15.18 (Debian …)` is 15.18.
  static func version(fromOutput output: String) -> String {
    let words = output.split(whereSeparator: \.isWhitespace)
    return words.count > 2 ? String(words[2]) : output
  }
}
