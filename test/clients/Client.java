import java.io.StringReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;

import org.postgresql.PGConnection;

/** What a program with JDBC does to the stream s (device text, ts timestamptz, value float8) and the view v over it; says what it finds, a line each. */
public class Client {
    public static void main(String[] arguments) throws Exception {
        try (Connection connection = DriverManager.getConnection(arguments[0])) {
            insert(connection);
            copy(connection);
            try (Statement statement = connection.createStatement()) {
                statement.execute("SELECT streamext.flush('s')");
            }
            // from the fifth time on the driver prepares on the server
            for (int i = 0; i < 8; i++)
                read(connection, i % 2 == 0 ? "oven" : "cooler");
            page(connection);
            describe(connection);
        }
    }

    static void insert(Connection connection) throws Exception {
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO s VALUES (?, ?, ?)")) {
            for (int i = 0; i < 100; i++) {
                statement.setString(1, i % 2 == 0 ? "oven" : "cooler");
                statement.setObject(2, OffsetDateTime.of(2024, 5, 1, 12, 0, i % 60, 0, ZoneOffset.UTC));
                statement.setDouble(3, i);
                statement.addBatch();
            }
            System.out.println("inserted " + statement.executeBatch().length);
        }
    }

    static void copy(Connection connection) throws Exception {
        String rows = "oven,2024-05-01 12:01:00+00,1000\n".repeat(10);
        System.out.println("copied " + connection.unwrap(PGConnection.class).getCopyAPI().copyIn("COPY s FROM STDIN (FORMAT csv)", new StringReader(rows)));
    }

    static void read(Connection connection, String device) throws Exception {
        try (PreparedStatement statement = connection.prepareStatement("SELECT n, total FROM v WHERE device = ? AND minute = ?")) {
            statement.setString(1, device);
            statement.setObject(2, OffsetDateTime.of(2024, 5, 1, 12, 0, 0, 0, ZoneOffset.UTC));
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                System.out.println(device + " " + rows.getLong(1) + " " + rows.getDouble(2) + " " + rows.next());
            }
        }
    }

    /** By a cursor, a row at a time. */
    static void page(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(1);
            int n = 0;
            try (ResultSet rows = statement.executeQuery("SELECT * FROM v ORDER BY device, minute")) {
                while (rows.next())
                    n++;
            }
            System.out.println("paged " + n);
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    static void describe(Connection connection) throws Exception {
        StringBuilder columns = new StringBuilder();
        try (ResultSet rows = connection.getMetaData().getColumns(null, "public", "v", null)) {
            while (rows.next())
                columns.append(' ').append(rows.getString("COLUMN_NAME")).append(':').append(rows.getString("TYPE_NAME"));
        }
        try (ResultSet rows = connection.getMetaData().getTables(null, "public", null, new String[] {"VIEW", "FOREIGN TABLE"})) {
            while (rows.next())
                columns.append(' ').append(rows.getString("TABLE_NAME")).append('=').append(rows.getString("TABLE_TYPE").replace(' ', '_'));
        }
        System.out.println("described" + columns);
    }
}
