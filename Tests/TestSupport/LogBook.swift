import Logging
import Synchronization

/// Everything that was logged, at any level, as text.
package final class LogBook: Sendable {
  private let lines = Mutex<[String]>([])

  package init() {}

  package var text: String { lines.withLock { $0.joined(separator: "\n") } }

  package var logger: Logger {
    var logger = Logger(label: "test") { _ in Handler(book: self) }
    logger.logLevel = .trace
    return logger
  }

  private struct Handler: LogHandler {
    let book: LogBook
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
      let all = metadata.merging(event.metadata ?? [:]) { $1 }
      book.lines.withLock { $0.append("\(event.level) \(event.message) \(all)") }
    }
  }
}
