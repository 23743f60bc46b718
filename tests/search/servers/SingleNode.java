import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import org.opensearch.Version;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.http.HttpServerTransport;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.plugins.PluginInfo;

/**
 * One OpenSearch node, 2.x or 3.x, over the jars of Maven Central. Arguments: its home, then `setting=value` as often as wanted.
 * It prints `READY <port>` when it answers, and ends when its standard input does: with the test that started it, however that ends.
 */
public class SingleNode {
    private static final List<String> MODULES = List.of(
        "transport.Netty4", "painless.Painless", "index.reindex.Reindex", "index.mapper.MapperExtras", "ingest.common.IngestCommon");

    public static void main(String[] args) throws Exception {
        Path config = Files.createDirectories(Path.of(args[0], "config"));
        Settings.Builder settings = Settings.builder().put("path.home", args[0])
            .put("http.type", "netty4").put("transport.type", "netty4")
            .put("cluster.name", "test").put("node.name", "test");
        for (String setting : List.of(args).subList(1, args.length)) {
            int equals = setting.indexOf('=');
            settings.put(setting.substring(0, equals), setting.substring(equals + 1));
        }
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(settings.build(), Map.of(), config, () -> "test");
        // The only constructor that takes modules from the class path is protected.
        var constructor = Node.class.getDeclaredConstructor(Environment.class, Collection.class, boolean.class);
        constructor.setAccessible(true);
        Node node = constructor.newInstance(environment, modules(), false);
        node.start();
        var http = node.injector().getInstance(HttpServerTransport.class);
        System.out.println("READY " + http.boundAddress().publishAddress().getPort());
        while (System.in.read() != -1) {}
        node.close();
        System.exit(0);
    }

    /** Classes for 2.x, descriptions of them for 3.x. */
    private static List<Object> modules() throws ClassNotFoundException {
        boolean described = Version.CURRENT.major >= 3;
        List<Object> modules = new ArrayList<>();
        for (String name : MODULES) {
            Class<?> type = Class.forName("org.opensearch." + name + (described ? "ModulePlugin" : "Plugin"));
            modules.add(!described ? type
                : new PluginInfo(name, "", "", Version.CURRENT, "17", type.getName(), null, List.of(), false));
        }
        return modules;
    }
}
