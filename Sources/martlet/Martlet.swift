import ArgumentParser
import Dispatcher

@main
struct Martlet: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "martlet",
    abstract: "A transactional outbox and webhook delivery engine for PostgreSQL.",
    discussion: """
      An application inserts events in the same transaction as its data; martlet delivers every committed one to every \
      subscribed endpoint, signed, retried, and dead-lettered if it cannot be delivered.

        martlet migrate                          create or update schema "outbox"
        martlet endpoint add https://…           say where to deliver
        martlet dispatch                         deliver, until stopped
        INSERT INTO outbox.event (type, payload) VALUES ('order.created', '{"id": 1}');

      Exit status: 0 success; 1 it failed, or (reconcile) there are findings; 2 (reconcile) it could not be checked; \
      64 the command line is wrong.
      """,
    version: martletVersion,
    subcommands: [
      MigrateCommand.self, DispatchCommand.self, ReconcileCommand.self, EndpointCommand.self, EventCommand.self,
      DeadCommand.self, SecretCommand.self, ReceiveCommand.self, DemoCommand.self, BenchCommand.self,
      ChaosCommand.self,
    ]
  )

  static func main() async {
    // Swift repairs what is not UTF-8 before anybody sees it; a payload must not be changed silently.
    for index in 1..<max(1, Int(CommandLine.argc)) {
      if let argument = CommandLine.unsafeArgv[index], String(validatingCString: argument) == nil {
        "Error: argument \(index) is not valid UTF-8.".printToStandardError()
        exit(withError: ExitCode(64))
      }
    }
    await main(nil)
  }
}
