import Foundation

/// Where the dispatchers' logs go: removed if all went well, kept and named if not.
package struct LogDirectory: Sendable {
  package let url: URL

  package init(_ name: String) throws {
    let parent = ProcessInfo.processInfo.environment["TMPDIR"].flatMap { $0.hasPrefix("/") ? $0 : nil } ?? "/tmp"
    var path = Array("\(parent)/martlet-\(name)-XXXXXX".utf8CString)
    guard mkdtemp(&path) != nil else {
      throw RigError("no directory could be made in \(parent): \(String(cString: strerror(errno)))")
    }
    url = URL(fileURLWithPath: String(decoding: path.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
  }

  /// Keeps a copy of a log that is about to be removed. Without it the rest is still worth keeping.
  package func keep(_ file: URL, as name: String) {
    try? FileManager.default.copyItem(at: file, to: url.appendingPathComponent(name))
  }

  package func remove() { try? FileManager.default.removeItem(at: url) }
}
