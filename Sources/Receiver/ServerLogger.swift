import FlyingSocks
import Logging

/// FlyingFox's log messages in swift-log. Its "critical" ones are errors that ``Receiver/run()`` throws anyway, so nothing
/// is louder than debug.
struct ServerLogger: FlyingSocks.Logging {
  var logger: Logger

  func logDebug(_ message: @autoclosure () -> String) { logger.trace("\(message())") }
  func logInfo(_ message: @autoclosure () -> String) { logger.trace("\(message())") }
  func logWarning(_ message: @autoclosure () -> String) { logger.debug("\(message())") }
  func logError(_ message: @autoclosure () -> String) { logger.debug("\(message())") }
  func logCritical(_ message: @autoclosure () -> String) { logger.debug("\(message())") }
}
