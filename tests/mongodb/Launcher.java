// A MongoDB-compatible server for tests, on loopback: `java -cp 'jars/*' Launcher.java PORT [STORE]`.
//
// It prints the port it got (0 picks one) and lives until its standard input ends, so that it cannot outlive the tests
// that started it. With STORE, a file, what was written survives the process; without, all is in memory.

import de.bwaldvogel.mongo.MongoBackend;
import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.bson.Document;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.List;

public class Launcher {
    // The server's own versions end at wire version 8 and PyMongo refuses less than 9 (MongoDB 4.4).
    // 13 is MongoDB 5.0's: of what it promises beyond, our store uses nothing.
    private static final MongoVersion VERSION = new MongoVersion() {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(5, 0, 0);
        }

        @Override
        public int getWireVersion() {
            return 13;
        }
    };

    // The server answers with the stored document itself and encodes it later, on another thread, when a further update
    // may have changed it: a quarter of the contended find-and-modify calls returned a state that was never theirs
    // (measured on 1.47.0). A real MongoDB never does. So one call at a time, and the answer is copied before the next.
    private static MongoBackend oneAtATime(MongoBackend backend) {
        Object lock = new Object();
        Class<?>[] types = {MongoBackend.class};
        return (MongoBackend) Proxy.newProxyInstance(Launcher.class.getClassLoader(), types, (self, method, args) -> {
            synchronized (lock) {
                try {
                    Object answer = method.invoke(backend, args);
                    return answer instanceof Document ? ((Document) answer).cloneDeeply() : answer;
                } catch (InvocationTargetException error) {
                    throw error.getCause();
                }
            }
        });
    }

    public static void main(String[] args) throws Exception {
        MongoBackend backend = args.length > 1 ? new H2Backend(args[1]) : new MemoryBackend();
        MongoServer server = new MongoServer(oneAtATime(backend.version(VERSION)));
        server.bind("127.0.0.1", Integer.parseInt(args[0]));
        System.out.println(server.getLocalAddress().getPort());
        System.out.flush();
        while (System.in.read() >= 0) {}
        server.shutdownNow();
        System.exit(0);
    }
}
